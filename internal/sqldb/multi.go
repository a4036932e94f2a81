package sqldb

import (
	"context"
	"database/sql"
	"fmt"
	"math/bits"
	"strconv"
	"strings"
	"sync"
)

// multiRowsMax is how many rows one statement takes; longer lists go in several. With at most 60
// columns a statement stays below SQLite's 32,766 and PostgreSQL's 65,535 parameters.
const multiRowsMax = 256

// Multi is a statement over a list of rows, the same for both engines: its text holds one
// "{rows}", which becomes
//
//	(VALUES (CAST($1 AS BIGINT), CAST($2 AS TEXT)), ($3, $4), …)
//
// (with ? for SQLite, whose driver looks every named parameter up in a list) with the columns column1, column2, … So that a few texts serve every length, and are prepared once,
// the list is padded with rows of NULL to a power of two: an INSERT … SELECT must leave them out
// (WHERE column1 IS NOT NULL), a join on column1 does so by itself.
type Multi struct {
	before, after string
	types         []string

	mu    sync.Mutex
	texts [2][10]string // by the dialect and the logarithm of the rows
}

// NewMulti makes a statement of text, whose rows have columns of the SQL types given.
func NewMulti(text string, types ...string) *Multi {
	before, after, found := strings.Cut(text, "{rows}")
	if !found || len(types) == 0 {
		panic("sqldb: a Multi needs {rows} and the types of its columns")
	}
	return &Multi{before: before, after: after, types: types}
}

// ExecMulti runs m for all rows and returns how many rows were changed.
func (tx *Tx) ExecMulti(ctx context.Context, m *Multi, rows [][]any) (int64, error) {
	var changed int64
	err := m.chunks(tx.Dialect, rows, func(text string, args []any) error {
		n, err := tx.Exec(ctx, text, args...)
		changed += n
		return err
	})
	return changed, err
}

// EachMulti runs m for all rows and calls scan for each row of the answer.
func (tx *Tx) EachMulti(ctx context.Context, scan func(*sql.Rows) error, m *Multi, rows [][]any) error {
	return m.chunks(tx.Dialect, rows, func(text string, args []any) error { return tx.Each(ctx, scan, text, args...) })
}

func (m *Multi) chunks(d Dialect, rows [][]any, run func(text string, args []any) error) error {
	for len(rows) > 0 {
		part := rows[:min(len(rows), multiRowsMax)]
		rows = rows[len(part):]
		power := bits.Len(uint(len(part) - 1))
		args := make([]any, 0, len(m.types)<<power)
		for _, r := range part {
			if len(r) != len(m.types) {
				panic(fmt.Sprintf("sqldb: a row of %d values for %d columns", len(r), len(m.types)))
			}
			args = append(args, r...)
		}
		if err := run(m.text(d, power), args[:cap(args)]); err != nil { // what is beyond the rows is NULL
			return err
		}
	}
	return nil
}

// Text is the statement for up to so many rows, as a plan is asked for.
func (m *Multi) Text(d Dialect, rows int) string { return m.text(d, bits.Len(uint(rows-1))) }

func (m *Multi) text(d Dialect, power int) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.texts[d][power] == "" {
		var b strings.Builder
		b.WriteString(m.before)
		b.WriteString("(VALUES ")
		n := 0
		for row := range 1 << power {
			if row > 0 {
				b.WriteString(", ")
			}
			for i, typ := range m.types {
				b.WriteString([]string{"(", ", "}[min(i, 1)])
				n++
				parameter := "?"
				if d == Postgres {
					parameter = "$" + strconv.Itoa(n)
				}
				if row == 0 { // PostgreSQL takes the column's type from here, SQLite its affinity
					parameter = "CAST(" + parameter + " AS " + typ + ")"
				}
				b.WriteString(parameter)
			}
			b.WriteByte(')')
		}
		b.WriteByte(')')
		b.WriteString(m.after)
		m.texts[d][power] = b.String()
	}
	return m.texts[d][power]
}
