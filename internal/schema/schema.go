package schema

import (
	"context"
	"crypto/rand"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"strconv"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"parley/internal/id"
	"parley/internal/sqldb"
)

//go:embed sqlite/*.sql postgres/*.sql
var migrations embed.FS

// Migrate brings the database to the newest version and fills in what every database has: its
// epoch, its number of buckets, and a row for each bucket. It returns how many migrations it applied.
func Migrate(ctx context.Context, db *sqldb.DB) (applied int, err error) {
	p, err := provider(db)
	if err != nil {
		return 0, err
	}
	results, err := p.Up(ctx)
	if err != nil {
		return 0, fmt.Errorf("schema: migrate: %w", err)
	}
	if err := db.InTx(ctx, begin); err != nil {
		return 0, fmt.Errorf("schema: first rows: %w", err)
	}
	return len(results), nil
}

// Pending tells whether Migrate would apply anything.
func Pending(ctx context.Context, db *sqldb.DB) (bool, error) {
	p, err := provider(db)
	if err != nil {
		return false, err
	}
	pending, err := p.HasPending(ctx)
	if err != nil {
		return false, fmt.Errorf("schema: %w", err)
	}
	return pending, nil
}

// Meta is what the database says of itself.
type Meta struct {
	Epoch      string // drawn when the database was made; a copy of it has the same
	RequestKey string // requests are hashed with it, so that a hash tells nothing of a deleted message
}

// ReadMeta reads it from a migrated database.
func ReadMeta(ctx context.Context, db *sqldb.DB) (Meta, error) {
	var m Meta
	err := db.Read(ctx, func(tx *sqldb.Tx) error {
		found, err := tx.One(ctx, []any{&m.Epoch, &m.RequestKey},
			`SELECT e.value, k.value FROM meta e CROSS JOIN meta k WHERE e.key = 'epoch' AND k.key = 'request_key'`)
		if err == nil && !found {
			err = errors.New("the database has not been migrated")
		}
		return err
	})
	if err != nil {
		return Meta{}, fmt.Errorf("schema: meta: %w", err)
	}
	return m, nil
}

func provider(db *sqldb.DB) (*goose.Provider, error) {
	dialect, folder := goose.DialectSQLite3, "sqlite"
	var options []goose.ProviderOption
	if db.Dialect() == sqldb.Postgres {
		dialect, folder = goose.DialectPostgres, "postgres"
		// Nodes that start together take turns.
		locker, err := lock.NewPostgresSessionLocker()
		if err != nil {
			return nil, fmt.Errorf("schema: %w", err)
		}
		options = append(options, goose.WithSessionLocker(locker))
	}
	files, err := fs.Sub(migrations, folder)
	if err != nil {
		return nil, fmt.Errorf("schema: %w", err)
	}
	p, err := goose.NewProvider(dialect, db.Pool(), files, options...)
	if err != nil {
		return nil, fmt.Errorf("schema: %w", err)
	}
	return p, nil
}

var insertBuckets = sqldb.NewMulti(`INSERT INTO buckets (bucket) SELECT column1 FROM {rows} AS v WHERE column1 IS NOT NULL ON CONFLICT DO NOTHING`, "BIGINT")

func begin(tx *sqldb.Tx) error {
	ctx := context.Background()
	for key, value := range map[string]string{"epoch": rand.Text(), "request_key": rand.Text(), "buckets": strconv.Itoa(id.Buckets)} {
		if _, err := tx.Exec(ctx, `INSERT INTO meta (key, value) VALUES ($1, $2) ON CONFLICT DO NOTHING`, key, value); err != nil {
			return err
		}
	}
	var buckets string
	if _, err := tx.One(ctx, []any{&buckets}, `SELECT value FROM meta WHERE key = 'buckets'`); err != nil {
		return err
	}
	if buckets != strconv.Itoa(id.Buckets) {
		return fmt.Errorf("the database has %s buckets and this program %d: they cannot work together", buckets, id.Buckets)
	}
	rows := make([][]any, id.Buckets)
	for b := range rows {
		rows[b] = []any{int64(b)}
	}
	_, err := tx.ExecMulti(ctx, insertBuckets, rows)
	return err
}
