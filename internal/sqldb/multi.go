package sqldb

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5/pgtype"
)

const (
	// sqliteRowsMax is how many rows one statement takes on SQLite; longer lists go in several. With at most 60 columns a
	// statement stays below its 32,766 parameters.
	sqliteRowsMax = 256
	// postgresRowsMax keeps a message to PostgreSQL small; a list is one parameter for each column there.
	postgresRowsMax = 4096
)

// Multi is a statement over a list of rows, the same for both engines: its text holds one "{rows}", which becomes a
// table with the columns column1, column2, … On PostgreSQL that is
//
//	(SELECT * FROM unnest($1::BIGINT[], $2::TEXT[]) AS r (column1, column2))
//
// so one prepared text serves every length. On SQLite it is
//
//	(VALUES (CAST(? AS BIGINT), CAST(? AS TEXT)), (?, ?), …)
//
// (with ?, since the driver looks every named parameter up in a list), and the list is padded with rows of NULL to one
// of a few lengths, whose texts are prepared once: an INSERT … SELECT must leave them out (WHERE column1 IS NOT NULL), a
// join on column1 does so by itself.
type Multi struct {
	before, after string
	types         []string

	mu     sync.Mutex
	sqlite map[int]string // by the number of rows

	postgres string
}

// lengths of the lists on SQLite: no more than a third of the rows is padding.
var lengths = []int{1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, sqliteRowsMax}

// NewMulti makes a statement of text, whose rows have columns of the SQL types given: BIGINT, TEXT or BOOLEAN; their values
// are int64, string or bool, or nil for NULL.
func NewMulti(text string, types ...string) *Multi {
	before, after, found := strings.Cut(text, "{rows}")
	if !found || len(types) == 0 {
		panic("sqldb: a Multi needs {rows} and the types of its columns")
	}
	m := &Multi{before: before, after: after, types: types, sqlite: map[int]string{}}
	var arrays, names []string
	for i, typ := range types {
		if !slices.Contains([]string{"BIGINT", "TEXT", "BOOLEAN"}, typ) {
			panic("sqldb: a Multi with a column of " + typ)
		}
		n := strconv.Itoa(i + 1)
		arrays = append(arrays, "$"+n+"::"+typ+"[]")
		names = append(names, "column"+n)
	}
	m.postgres = before + "(SELECT * FROM unnest(" + strings.Join(arrays, ", ") + ") AS r (" + strings.Join(names, ", ") + "))" + after
	return m
}

// statements appends to all those that run m for rows. Each adds to changed, unless that is nil.
func (m *Multi) statements(all []statement, d Dialect, rows [][]any, scan func(Row) error, changed *int64) []statement {
	most := sqliteRowsMax
	if d == Postgres {
		most = postgresRowsMax
	}
	for part := range slices.Chunk(rows, most) {
		for _, r := range part {
			if len(r) != len(m.types) {
				panic(fmt.Sprintf("sqldb: a row of %d values for %d columns", len(r), len(m.types)))
			}
		}
		s := statement{scan: scan, changed: changed}
		if d == Postgres {
			s.text, s.args = m.postgres, m.columns(part)
		} else {
			n := listLength(len(part))
			s.text, s.args = m.sqliteText(n), make([]any, 0, n*len(m.types))
			for _, r := range part {
				s.args = append(s.args, r...)
			}
			s.args = s.args[:cap(s.args)] // what is beyond the rows is NULL
		}
		all = append(all, s)
	}
	return all
}

// orFail spares SQLite the journal by which it could undo a statement that fails half-way ("The ON CONFLICT Clause"):
// here a statement that fails fails its transaction.
func orFail(text string) string {
	for _, verb := range []string{"INSERT", "UPDATE"} {
		if rest, found := strings.CutPrefix(text, verb+" "); found {
			return verb + " OR FAIL " + rest
		}
	}
	return text
}

// listLength is the shortest of lengths that holds rows.
func listLength(rows int) int {
	i, _ := slices.BinarySearch(lengths, rows)
	return lengths[i]
}

// columns are the rows as arrays, one for each column.
func (m *Multi) columns(rows [][]any) []any {
	columns := make([]any, len(m.types))
	for i, typ := range m.types {
		switch typ {
		case "BIGINT":
			columns[i] = column(rows, i, func(v int64) pgtype.Int8 { return pgtype.Int8{Int64: v, Valid: true} })
		case "TEXT":
			columns[i] = column(rows, i, func(v string) pgtype.Text { return pgtype.Text{String: v, Valid: true} })
		default:
			columns[i] = column(rows, i, func(v bool) pgtype.Bool { return pgtype.Bool{Bool: v, Valid: true} })
		}
	}
	return columns
}

// column is one column of rows, whose values are V (int64, string or bool) or nil.
func column[V, P any](rows [][]any, i int, valid func(V) P) pgtype.FlatArray[P] {
	array := make(pgtype.FlatArray[P], len(rows))
	for j, r := range rows {
		if r[i] != nil {
			array[j] = valid(r[i].(V))
		}
	}
	return array
}

// Text is the statement for up to so many rows, as a plan is asked for.
func (m *Multi) Text(d Dialect, rows int) string {
	if d == Postgres {
		return m.postgres
	}
	return m.sqliteText(listLength(rows))
}

func (m *Multi) sqliteText(rows int) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.sqlite[rows] == "" {
		var b strings.Builder
		b.WriteString(orFail(m.before))
		b.WriteString("(VALUES ")
		for row := range rows {
			if row > 0 {
				b.WriteString(", ")
			}
			for i, typ := range m.types {
				b.WriteString([]string{"(", ", "}[min(i, 1)])
				if row == 0 { // SQLite takes the column's affinity from here
					b.WriteString("CAST(? AS " + typ + ")")
				} else {
					b.WriteByte('?')
				}
			}
			b.WriteByte(')')
		}
		b.WriteByte(')')
		b.WriteString(m.after)
		m.sqlite[rows] = b.String()
	}
	return m.sqlite[rows]
}
