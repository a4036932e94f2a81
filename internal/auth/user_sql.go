package auth

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"parley/internal/id"
	"parley/internal/problem"
	"parley/internal/sqldb"
	"parley/internal/wire"
)

const userColumns = `users.id, display_name, username, email, avatar_url, role, metadata, created_ms, updated_ms`

func scanUser(rows sqldb.Row) (User, error) {
	var u User
	var metadata *string
	err := rows.Scan(&u.ID, &u.DisplayName, &u.Username, &u.Email, &u.AvatarURL, &u.Role, &metadata,
		(*int64)(&u.CreatedAt), (*int64)(&u.UpdatedAt))
	if metadata != nil {
		u.Metadata = json.RawMessage(*metadata)
	}
	return u, err
}

// read finds one row by its primary key.
func (u *Users) read(ctx context.Context, user id.User) (row User, found bool, err error) {
	err = u.db.Read(ctx, func(tx *sqldb.Tx) error {
		return tx.Each(ctx, func(rows sqldb.Row) (err error) {
			found = true
			row, err = scanUser(rows)
			return err
		}, `SELECT `+userColumns+` FROM users WHERE id = $1`, string(user))
	})
	return row, found, err
}

// write makes the user, or brings it up to what the token says.
func (u *Users) write(ctx context.Context, i Identity) (User, error) {
	name := i.Name
	if name == "" {
		name = string(i.User)
	}
	var row User
	err := u.db.InTxUrgent(ctx, func(tx *sqldb.Tx) error {
		return tx.Each(ctx, func(rows sqldb.Row) (err error) {
			row, err = scanUser(rows)
			return err
		}, `
			INSERT INTO users (id, display_name, role, created_ms, updated_ms) VALUES ($1, $2, $3, $4, $4)
			ON CONFLICT (id) DO UPDATE SET
				display_name = CASE WHEN CAST($5 AS BOOLEAN) THEN excluded.display_name ELSE users.display_name END,
				role = excluded.role, updated_ms = excluded.updated_ms
			RETURNING `+userColumns,
			string(i.User), name, string(i.Role), int64(wire.At(u.now())), i.Name != "")
	})
	return row, err
}

var ensureUsers = sqldb.NewMulti(`
	INSERT INTO users (id, display_name, created_ms, updated_ms)
	SELECT column1, column1, column2, column2 FROM {rows} AS v WHERE column1 IS NOT NULL
	ON CONFLICT (id) DO NOTHING`, "TEXT", "BIGINT")

// Ensure makes those of the users who do not exist yet, with their ids as display names, as part of tx. Repeated ids do no
// harm. The caller bounds the list.
func (u *Users) Ensure(ctx context.Context, tx *sqldb.Tx, ids []id.User) error {
	// In one order, so that two transactions that make the same users cannot wait for each other.
	ids = slices.Compact(slices.Sorted(slices.Values(ids)))
	now := int64(wire.At(u.now()))
	rows := make([][]any, len(ids))
	for i, user := range ids {
		rows[i] = []any{string(user), now}
	}
	if _, err := tx.ExecMulti(ctx, ensureUsers, rows); err != nil {
		return fmt.Errorf("auth: make users: %w", err)
	}
	return nil
}

var lookupUsers = sqldb.NewMulti(`SELECT `+userColumns+` FROM {rows} AS v JOIN users ON users.id = v.column1`, "TEXT")

// Lookup returns those of the users who exist, each found by its primary key.
//
// Errors: [problem.BadRequest] for more than LookupMax ids, and the database's.
func (u *Users) Lookup(ctx context.Context, ids []id.User) (map[id.User]User, error) {
	if len(ids) > LookupMax {
		return nil, problem.New(problem.BadRequest, fmt.Sprintf("At most %d users can be asked for at a time.", LookupMax))
	}
	rows := make([][]any, len(ids))
	for i, user := range ids {
		rows[i] = []any{string(user)}
	}
	users := make(map[id.User]User, len(ids))
	err := u.db.Read(ctx, func(tx *sqldb.Tx) error {
		return tx.EachMulti(ctx, func(rows sqldb.Row) error {
			user, err := scanUser(rows)
			users[user.ID] = user
			return err
		}, lookupUsers, rows)
	})
	if err != nil {
		return nil, fmt.Errorf("auth: look users up: %w", err)
	}
	return users, nil
}
