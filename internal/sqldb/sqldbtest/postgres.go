package sqldbtest

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx", to make and drop databases with

	"parley/test/postgres"
)

// OpenPostgresURL returns the URL of an empty database, without a schema, which is removed when the test ends: what
// a first start of the real server finds.
func OpenPostgresURL(t testing.TB) string {
	t.Helper()
	return createPostgres(t, "template0")
}

// postgresCopy returns the URL of a new database with the present schema, which is removed when the test ends.
func postgresCopy(t testing.TB) string {
	t.Helper()
	template, err := postgresTemplate()
	if err != nil {
		t.Fatalf("sqldbtest: %v", err)
	}
	return createPostgres(t, template)
}

func createPostgres(t testing.TB, template string) string {
	t.Helper()
	name := newName("test")
	if err := onCluster("CREATE DATABASE " + name + " TEMPLATE " + template); err != nil {
		t.Fatalf("sqldbtest: %v", err)
	}
	t.Cleanup(func() {
		// A server that the test killed may still have a session open here.
		if err := onCluster("DROP DATABASE " + name + " WITH (FORCE)"); err != nil {
			t.Errorf("sqldbtest: %v", err)
		}
	})
	address, err := databaseURL(name)
	if err != nil {
		t.Fatalf("sqldbtest: %v", err)
	}
	return address
}

// cluster is the one that the databases are in. One that is started here lives as long as the process, for to hold it
// is what keeps it alive.
var cluster = sync.OnceValues(func() (*postgres.Cluster, error) {
	if given := os.Getenv("PARLEY_TEST_POSTGRES_URL"); given != "" {
		return &postgres.Cluster{URL: given}, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), setUp)
	defer cancel()
	return postgres.Start(ctx, postgres.Options{})
})

// postgresTemplate is the name of a database with the present schema that nobody is connected to, made once a process.
var postgresTemplate = sync.OnceValues(func() (string, error) {
	name := newName("template")
	if err := onCluster("CREATE DATABASE " + name + " TEMPLATE template0"); err != nil {
		return "", err
	}
	address, err := databaseURL(name)
	if err != nil {
		return "", err
	}
	return name, migrate(address)
})

// errUnreadable stands for the parsers' own errors, which may show the password.
var errUnreadable = errors.New("PARLEY_TEST_POSTGRES_URL cannot be read as a URL")

// newName returns a database name that no other process on the same cluster has.
func newName(kind string) string { return "parley_" + kind + "_" + strings.ToLower(rand.Text()) }

// databaseURL is the cluster's URL with another database.
func databaseURL(name string) (string, error) {
	c, err := cluster()
	if err != nil {
		return "", err
	}
	u, err := url.Parse(c.URL)
	if err != nil {
		return "", errUnreadable
	}
	u.Path = "/" + name
	q := u.Query()
	q.Set("idle_in_transaction_session_timeout", strconv.FormatInt(patience.Milliseconds(), 10))
	u.RawQuery = q.Encode()
	return u.String(), nil
}

// onCluster runs a statement that no transaction may hold. No connection is kept, so that a test may look for leaks.
func onCluster(statement string) error {
	c, err := cluster()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), setUp)
	defer cancel()
	db, err := sql.Open("pgx", c.URL)
	if err != nil {
		return errUnreadable
	}
	defer db.Close() // there is nothing to lose in a connection that is done
	if _, err := db.ExecContext(ctx, statement); err != nil {
		return fmt.Errorf("%s: %w", statement, err)
	}
	return nil
}
