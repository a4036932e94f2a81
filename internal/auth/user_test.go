package auth

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"parley/internal/id"
	"parley/internal/problem"
	"parley/internal/sqldb"
	"parley/internal/sqldb/sqldbtest"
	"parley/internal/wire"
)

func TestSignedIn(t *testing.T) {
	sqldbtest.Run(t, func(t *testing.T, db *sqldb.DB) {
		ctx, c := t.Context(), newClock()
		users := NewUsers(db, c.now)
		work := func() (n int64) { s := db.Stats(); return s.Commits + s.Reads }
		signIn := func(u *Users, i Identity, name string, role Role) User {
			t.Helper()
			row, err := u.SignedIn(ctx, i)
			if err != nil {
				t.Fatalf("SignedIn(%+v): %v", i, err)
			}
			if row.ID != i.User || row.DisplayName != name || row.Role != role {
				t.Errorf("SignedIn(%+v) = %+v, want %q and %s", i, row, name, role)
			}
			stored, err := u.Get(ctx, i.User)
			if err != nil || stored.DisplayName != name || stored.Role != role {
				t.Errorf("stored: %+v, %v, want %q and %s", stored, err, name, role)
			}
			return row
		}

		made := signIn(users, Identity{User: "ann", Role: RoleUser}, "ann", RoleUser)
		if made.CreatedAt != wire.At(start) || made.UpdatedAt != wire.At(start) {
			t.Errorf("made at %v, %v, want the clock's time", made.CreatedAt.Time(), made.UpdatedAt.Time())
		}
		c.add(time.Minute)
		named := signIn(users, Identity{User: "ann", Name: "Ann", Role: RoleAdmin}, "Ann", RoleAdmin)
		if named.CreatedAt != made.CreatedAt || named.UpdatedAt != wire.At(c.now()) {
			t.Errorf("times after a change: %v, %v", named.CreatedAt.Time(), named.UpdatedAt.Time())
		}
		signIn(users, Identity{User: "ann", Role: RoleAdmin}, "Ann", RoleAdmin) // No name: none is taken away.

		before := work()
		for range 10 {
			if _, err := users.SignedIn(ctx, Identity{User: "ann", Name: "Ann", Role: RoleAdmin}); err != nil {
				t.Fatal(err)
			}
		}
		if n := work() - before; n != 0 {
			t.Errorf("ten sign-ins with nothing new caused %d transactions", n)
		}
		c.add(cachedAge + time.Second)
		before = db.Stats().Commits
		signIn(users, Identity{User: "ann", Name: "Ann", Role: RoleAdmin}, "Ann", RoleAdmin)
		if n := db.Stats().Commits - before; n != 0 {
			t.Errorf("a sign-in with nothing new, not cached, caused %d commits", n)
		}
		signIn(users, Identity{User: "ann", Name: "Ann", Role: RoleUser}, "Ann", RoleUser) // No longer an admin.

		// Another node's Users, with a cache of its own.
		other := NewUsers(db, c.now)
		signIn(other, Identity{User: "ann", Name: "Anna", Role: RoleUser}, "Anna", RoleUser)
		signIn(users, Identity{User: "ann", Name: "Anna", Role: RoleUser}, "Anna", RoleUser)

		awkward := id.User("анна'\"; DROP TABLE users; --")
		signIn(users, Identity{User: awkward, Name: "\U0001F600", Role: RoleGuest}, "\U0001F600", RoleGuest)
	})
}

func TestSignedInAtOnce(t *testing.T) {
	sqldbtest.Run(t, func(t *testing.T, db *sqldb.DB) {
		users := NewUsers(db, newClock().now)
		var all sync.WaitGroup
		for i := range 16 {
			all.Go(func() {
				u, err := users.SignedIn(t.Context(), Identity{User: "ann", Name: fmt.Sprint("Ann", i%2), Role: RoleUser})
				if err != nil || u.ID != "ann" {
					t.Errorf("SignedIn = %+v, %v", u, err)
				}
			})
		}
		all.Wait()
	})
}

func TestCacheIsBounded(t *testing.T) {
	u := NewUsers(nil, newClock().now)
	for i := range cachedMax + 100 {
		u.toCache(User{ID: id.User(fmt.Sprint(i))}, start)
	}
	if n := len(u.cached); n != cachedMax {
		t.Errorf("%d users are cached, want %d", n, cachedMax)
	}
	last := id.User(fmt.Sprint(cachedMax + 99))
	if _, ok := u.fromCache(last); !ok {
		t.Error("the newest user is not in the cache")
	}
}

func TestEnsure(t *testing.T) {
	sqldbtest.Run(t, func(t *testing.T, db *sqldb.DB) {
		ctx := t.Context()
		users := NewUsers(db, newClock().now)
		if _, err := users.SignedIn(ctx, Identity{User: "ann", Name: "Ann", Role: RoleAdmin}); err != nil {
			t.Fatal(err)
		}
		ensure := func(ids ...id.User) error {
			return db.InTx(ctx, func(tx *sqldb.Tx) error { return users.Ensure(ctx, tx, ids) })
		}
		ids := []id.User{"zoe", "ann", "bob", "zoe"}
		for range 2 {
			if err := ensure(ids...); err != nil {
				t.Fatalf("Ensure: %v", err)
			}
		}
		if ids[0] != "zoe" {
			t.Error("Ensure has sorted its caller's list")
		}
		if err := ensure(); err != nil {
			t.Errorf("Ensure of nobody: %v", err)
		}
		got, err := users.Lookup(ctx, []id.User{"zoe", "ann", "bob", "nobody", "bob"})
		if err != nil || len(got) != 3 {
			t.Fatalf("Lookup = %v, %v, want three", got, err)
		}
		if u := got["ann"]; u.DisplayName != "Ann" || u.Role != RoleAdmin {
			t.Errorf("Ensure changed one who existed: %+v", u)
		}
		if u := got["zoe"]; u.DisplayName != "zoe" || u.Role != RoleUser || u.CreatedAt != wire.At(start) {
			t.Errorf("made: %+v", u)
		}

		// With the transaction of the caller, or not at all.
		undone := errors.New("undone")
		err = db.InTx(ctx, func(tx *sqldb.Tx) error {
			if err := users.Ensure(ctx, tx, []id.User{"ghost"}); err != nil {
				return err
			}
			return undone
		})
		if !errors.Is(err, undone) {
			t.Fatal(err)
		}
		_, err = users.Get(ctx, "ghost")
		if p, _ := problem.Of(err); p.Code != problem.NotFound {
			t.Errorf("Get of one who was rolled back: %v, want not_found", err)
		}

		many := make([]id.User, LookupMax)
		for i := range many {
			many[i] = id.User(fmt.Sprintf("%0128d", i))
		}
		if err := ensure(many...); err != nil {
			t.Fatalf("Ensure of %d: %v", len(many), err)
		}
		if got, err := users.Lookup(ctx, many); err != nil || len(got) != len(many) {
			t.Errorf("Lookup of %d: %d, %v", len(many), len(got), err)
		}
		_, err = users.Lookup(ctx, append(many, "one-more"))
		if p, _ := problem.Of(err); p.Code != problem.BadRequest {
			t.Errorf("Lookup of more: %v, want bad_request", err)
		}
	})
}

// Transactions that make overlapping users in different orders must not wait for each other.
func TestEnsureAtOnce(t *testing.T) {
	sqldbtest.Run(t, func(t *testing.T, db *sqldb.DB) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		users := NewUsers(db, newClock().now)
		var all sync.WaitGroup
		for worker := range 8 {
			all.Go(func() {
				for round := range 10 {
					ids := make([]id.User, 20)
					for i := range ids {
						ids[(i*7+worker*3)%20] = id.User(fmt.Sprint("u", round, "-", i))
					}
					err := db.InTx(ctx, func(tx *sqldb.Tx) error { return users.Ensure(ctx, tx, ids) })
					if err != nil {
						t.Errorf("Ensure: %v", err)
					}
				}
			})
		}
		all.Wait()
	})
}

func TestUsersWithoutDatabase(t *testing.T) {
	sqldbtest.Run(t, func(t *testing.T, db *sqldb.DB) {
		users := NewUsers(db, newClock().now)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := users.SignedIn(ctx, Identity{User: "ann", Role: RoleUser})
		if p, shown := problem.Of(err); err == nil || shown {
			t.Errorf("SignedIn with an ended context: %v (%v), want an error that is not shown", err, p)
		}
		if err != nil && strings.Contains(err.Error(), "ann") {
			t.Errorf("the error names the user: %v", err)
		}
	})
}
