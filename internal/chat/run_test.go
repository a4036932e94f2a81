package chat

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"pgregory.net/rapid"

	"parley/internal/bus"
	"parley/internal/id"
	"parley/internal/schema"
	"parley/internal/sqldb"
	"parley/internal/sqldb/sqldbtest"
	"parley/test/postgres"
)

// openURL opens a database that a test may close at any time.
func openURL(t testing.TB, url string) *sqldb.DB {
	t.Helper()
	db, err := sqldb.Open(t.Context(), sqldb.Options{URL: url, ReadMax: 30 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	return db
}

// copyDatabase copies a database that nobody has open, as a backup does, and returns the URL of the copy.
func copyDatabase(t testing.TB, url string) string {
	t.Helper()
	if path, isFile := strings.CutPrefix(url, "sqlite:"); isFile {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		path = filepath.Join(t.TempDir(), "copy.db")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return "sqlite:" + path
	}
	admin := openURL(t, sqldbtest.OpenPostgresURL(t))
	name := "copy_" + newRunTag().hex()
	run := func(statement string) {
		if _, err := admin.Pool().ExecContext(context.Background(), statement); err != nil {
			t.Errorf("%s: %v", statement, err)
		}
	}
	from := url[strings.LastIndex(url, "/")+1:]
	from, query, _ := strings.Cut(from, "?")
	run("CREATE DATABASE " + name + " TEMPLATE " + from)
	t.Cleanup(func() {
		run("DROP DATABASE " + name + " WITH (FORCE)")
		if err := admin.Close(); err != nil {
			t.Error(err)
		}
	})
	return url[:strings.LastIndex(url, "/")+1] + name + "?" + query
}

func (t runTag) hex() string { return fmt.Sprintf("%x", t[:]) }

// missed are the texts that a sync from cursor brings; reset says that the cursor was not taken.
func (n *node) missed(t testing.TB, u id.User, cursor string) (texts []string, reset bool) {
	t.Helper()
	for {
		page, err := n.Sync(t.Context(), u, cursor, 0)
		if err != nil {
			t.Fatal(err)
		}
		if page.Reset {
			return nil, true
		}
		for _, ch := range page.Changes {
			if ch.Message != nil {
				texts = append(texts, *ch.Message.Content)
			}
		}
		if cursor = page.Cursor; !page.HasMore {
			return texts, false
		}
	}
}

func (n *node) cursor(t testing.TB, u id.User) string {
	t.Helper()
	page, err := n.Sync(t.Context(), u, "", 0)
	if err != nil {
		t.Fatal(err)
	}
	return page.Cursor
}

// wants fails unless cursor brings just these texts.
func (n *node) wants(t testing.TB, what, cursor string, want ...string) {
	t.Helper()
	if got, reset := n.missed(t, "bob", cursor); reset || !slices.Equal(got, want) {
		t.Errorf("%s: %v, reset %v; want %v", what, got, reset, want)
	}
}

func (n *node) wantsReset(t testing.TB, what, cursor string) {
	t.Helper()
	if got, reset := n.missed(t, "bob", cursor); !reset {
		t.Errorf("%s: %v without a reset", what, got)
	}
}

// TestRestoredBackup presents cursors from a time that a restored backup does not have, when the database has long grown
// beyond them: one of the run that was open when the backup was made, and one of a later run.
func TestRestoredBackup(t *testing.T) {
	t.Parallel() // it waits, most of the time
	for _, stopped := range []bool{false, true} {
		for _, dialect := range []sqldb.Dialect{sqldb.SQLite, sqldb.Postgres} {
			t.Run(fmt.Sprintf("%s, stopped %v", dialect, stopped), func(t *testing.T) { testRestoredBackup(t, dialect, stopped) })
		}
	}
}

// testRestoredBackup makes the backup while a node runs, or after it has stopped.
func testRestoredBackup(t *testing.T, dialect sqldb.Dialect, stopped bool) {
	url := sqldbtest.URL(t, dialect)
	db := openURL(t, url)
	first, kill := startKillable(t, db, Options{})
	cv := first.group(t, "ann", "bob")
	first.send(t, "ann", cv.ID, "a", "")
	before := first.cursor(t, "bob")
	first.send(t, "ann", cv.ID, "b", "")
	kill()
	if stopped {
		if err := first.endRun(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	backup := copyDatabase(t, url)

	// The node was only held up for the time of the copy.
	db = openURL(t, url)
	second, kill := startKillable(t, db, Options{})
	if err := db.InTx(t.Context(), func(tx *sqldb.Tx) error {
		_, err := tx.Exec(t.Context(), `UPDATE runs SET ended_ms = NULL, ended_heads = NULL, ended_by = NULL WHERE tag = $1`, first.runs.current().String())
		return err
	}); err != nil {
		t.Fatal(err)
	}
	own := second.runs.current()
	second.send(t, "ann", cv.ID, "lost 1", "")
	second.runs.begun(first.runs.current(), second.runs.server)
	lostSame := second.cursor(t, "bob")
	second.runs.begun(own, second.runs.server)
	second.send(t, "ann", cv.ID, "lost 2", "")
	lost := second.cursor(t, "bob")
	second.wants(t, "in the original, of the first run", lostSame, "lost 2")
	last := second.send(t, "ann", cv.ID, "lost 3", "")
	told := time.Now()
	kill()
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}

	db = openURL(t, backup)
	t.Cleanup(func() { db.Close() }) // after the node
	restored := start(t, db, Options{})
	for i := range 9 {
		restored.send(t, "ann", cv.ID, fmt.Sprint("new ", i), "")
	}
	restored.wantsReset(t, "of the run that the backup has", lostSame)
	restored.wantsReset(t, "of a run that the backup does not have", lost)
	restored.wants(t, "from before the backup", before, "b", "new 0", "new 1", "new 2", "new 3", "new 4", "new 5", "new 6", "new 7", "new 8")
	restored.wants(t, "new", restored.cursor(t, "bob"))
	if cursor, found, err := restored.CursorAt(t.Context(), told, cv.ID.Bucket(), last.Pos); found || err != nil {
		t.Errorf("CursorAt for what was told in the time that was lost: %q, %v, %v", cursor, found, err)
	}
}

// TestRestarts has a cursor outlive the process that gave it out, and the place of a client without one, whether that
// stopped or was killed.
func TestRestarts(t *testing.T) {
	t.Parallel() // it waits, most of the time
	for _, dialect := range []sqldb.Dialect{sqldb.SQLite, sqldb.Postgres} {
		t.Run(dialect.String(), func(t *testing.T) {
			url := sqldbtest.URL(t, dialect)
			var cursors []string
			var cid id.Conversation
			type place struct {
				told time.Time
				pos  int64
			}
			var places []place
			for i := range 4 {
				db := openURL(t, url)
				n, kill := startKillable(t, db, Options{PollEvery: 10 * time.Millisecond})
				if i == 0 {
					cid = n.group(t, "ann", "bob").ID
				}
				cursors = append(cursors, n.cursor(t, "bob"))
				sent := n.send(t, "ann", cid, fmt.Sprint(i), "")
				places = append(places, place{n.Feed.Complete(), sent.Pos})
				for k, cursor := range cursors {
					n.wants(t, fmt.Sprintf("cursor %d in run %d", k, i), cursor, []string{"0", "1", "2", "3"}[k:i+1]...)
				}
				for k, p := range places {
					var cursor string
					eventually(t, fmt.Sprintf("place %d is found in run %d", k, i), func() bool { // there is a first checkpoint
						var found bool
						var err error
						if cursor, found, err = n.CursorAt(t.Context(), p.told, cid.Bucket(), p.pos); err != nil {
							t.Fatal(err)
						}
						return found
					})
					n.wants(t, fmt.Sprintf("from place %d in run %d", k, i), cursor, []string{"0", "1", "2", "3"}[k+1:i+1]...)
				}
				kill()
				if i%2 == 1 {
					if err := n.endRun(t.Context()); err != nil {
						t.Error(err)
					}
				}
				if err := db.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// TestSilentNode freezes a node until another one has ended its run.
func TestSilentNode(t *testing.T) {
	db := sqldbtest.Open(t, sqldb.Postgres, Check)
	frozen := start(t, db, Options{BeatEvery: time.Hour})
	n := start(t, db, Options{BeatEvery: time.Hour})
	cv := frozen.group(t, "ann", "bob")
	early := frozen.cursor(t, "bob")
	frozen.send(t, "ann", cv.ID, "1", "")
	late := frozen.cursor(t, "bob")
	tag := frozen.runs.current()

	if err := n.beat(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := frozen.beat(t.Context()); err != nil || frozen.runs.current() != tag {
		t.Fatalf("a run in good time: %v of %v, %v", frozen.runs.current(), tag, err)
	}
	silence := func() {
		if err := db.InTx(t.Context(), func(tx *sqldb.Tx) error {
			_, err := tx.Exec(t.Context(), `UPDATE runs SET beat_ms = beat_ms - $1 WHERE tag = $2`, silenceMax.Milliseconds(), tag.String())
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	silence()
	if err := n.beat(t.Context()); err != nil {
		t.Fatal(err)
	}
	n.send(t, "ann", cv.ID, "2", "")
	n.runs.begun(n.runs.current(), n.runs.server) // as when a second has gone by
	for _, node := range []*node{n, frozen} {
		node.wants(t, "from before the silence", early, "1", "2")
		node.wants(t, "the last before the silence", late, "2")
	}
	beyond := frozen.cursor(t, "bob") // it does not know yet
	n.wantsReset(t, "from behind the end of its run", beyond)
	if err := frozen.beat(t.Context()); err != nil || frozen.runs.current() == tag {
		t.Fatalf("the run after its end: %v, %v", frozen.runs.current(), err)
	}
	n.send(t, "ann", cv.ID, "3", "")
	n.wants(t, "of the node's next run", frozen.cursor(t, "bob"))
	if n := testutil.ToFloat64(frozen.metrics.losses); n != 0 {
		t.Errorf("%v losses were seen, of none", n)
	}
}

// TestLossyFailover has a replica without the newest messages take over under two running nodes. One of them writes more
// than was lost before the other one looks.
func TestLossyFailover(t *testing.T) {
	t.Parallel() // it waits, most of the time
	ctx := t.Context()
	primary, err := postgres.Start(ctx, postgres.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(primary.Stop)
	replica, err := primary.Replica(ctx, "second", postgres.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(replica.Stop)
	both := strings.Replace(primary.URL, fmt.Sprintf("127.0.0.1:%d", primary.Port()), fmt.Sprintf("127.0.0.1:%d,127.0.0.1:%d", primary.Port(), replica.Port()), 1)
	separator := "?"
	if strings.Contains(both, "?") {
		separator = "&"
	}
	both += separator + "target_session_attrs=read-write&idle_in_transaction_session_timeout=30000"

	lost := make(chan struct{}, 2)
	quick, slow := openURL(t, both), openURL(t, both)
	t.Cleanup(func() { quick.Close(); slow.Close() }) // after the nodes, which may find it gone as they please
	if _, err := schema.Migrate(ctx, quick); err != nil {
		t.Fatal(err)
	}
	// No beat is due: the new server itself must end the runs, before the first write.
	a := startOn(t, quick, openBus(t, bus.Options{}), Options{PollEvery: 20 * time.Millisecond, BeatEvery: time.Hour, Shared: true})
	b := startOn(t, slow, openBus(t, bus.Options{}), Options{PollEvery: time.Hour, BeatEvery: time.Hour, Shared: true})
	b.Chat.lost = func() { lost <- struct{}{} }
	cv := a.group(t, "ann", "bob")
	before := b.cursor(t, "bob")
	a.send(t, "ann", cv.ID, "kept", "")
	kept := b.cursor(t, "bob")
	caught := openURL(t, replica.URL)
	eventually(t, "the replica has it", func() bool {
		var messages int
		_ = caught.Read(ctx, func(tx *sqldb.Tx) error { // a replica may be behind with the schema as well
			_, err := tx.One(ctx, []any{&messages}, `SELECT COUNT(*) FROM messages`)
			return err
		})
		return messages == 1
	})
	if err := caught.Close(); err != nil {
		t.Fatal(err)
	}
	if err := replica.Shutdown(ctx, postgres.Fast); err != nil {
		t.Fatal(err)
	}
	a.send(t, "ann", cv.ID, "lost", "")
	b.send(t, "ann", cv.ID, "lost too", "")
	a.handled(t, cv.ID)
	b.handled(t, cv.ID)
	gone := map[string]string{"a": a.cursor(t, "bob"), "b": b.cursor(t, "bob")}
	if err := primary.Shutdown(ctx, postgres.Killed); err != nil {
		t.Fatal(err)
	}
	if err := replica.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if err := replica.Promote(ctx); err != nil {
		t.Fatal(err)
	}
	var want []string
	for i := range 9 { // more than was lost
		text := fmt.Sprint("new ", i)
		want = append(want, text)
		eventually(t, text, func() bool {
			_, err := a.Send(ctx, "ann", Draft{ConversationID: string(cv.ID), Content: &text, ClientMessageID: text})
			return err == nil
		})
	}
	// The other one has its own connections, and nothing woke it yet.
	fromMemory := b.Cursor(b.Feed.positions())
	for name, cursor := range gone {
		a.wantsReset(t, "in the lost time, of "+name, cursor)
	}
	a.wantsReset(t, "given out from memory behind the loss", fromMemory)
	a.wants(t, "from before", before, append([]string{"kept"}, want...)...)
	eventually(t, "b reaches the new server", func() bool {
		return b.db.Read(ctx, func(tx *sqldb.Tx) error { _, err := selectHeads(ctx, tx); return err }) == nil
	})
	for name, cursor := range gone {
		b.wantsReset(t, "at b in the lost time, of "+name, cursor)
	}
	b.wants(t, "the last from before", kept, want...)
	select {
	case <-lost:
	case <-time.After(20 * time.Second):
		t.Fatal("b never said that something was lost")
	}
	eventually(t, "b begins another run", func() bool { return b.runs.current() != tagOf(t, fromMemory) })
	b.send(t, "ann", cv.ID, "after", "")
	b.handled(t, cv.ID)
	a.handled(t, cv.ID)
	now, err := a.readHeads(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for name, n := range map[string]*node{"a": a, "b": b} {
		eventually(t, name+" is at the head", func() bool { return maps.Equal(n.Feed.positions(), now) })
		n.wants(t, "after it all", n.Cursor(n.Feed.positions()))
	}
}

// TestServerRestarts restarts PostgreSQL under two nodes that write all the time: both begin another run, neither sees a loss,
// and both handle everything.
func TestServerRestarts(t *testing.T) {
	t.Parallel() // it waits, most of the time
	ctx := t.Context()
	cluster, err := postgres.Start(ctx, postgres.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Stop)
	first := openBus(t, bus.Options{ClusterListen: "127.0.0.1:0"})
	second := openBus(t, bus.Options{ClusterListen: "127.0.0.1:0", ClusterRoutes: []string{"nats://" + first.ClusterAddr()}})
	eventually(t, "the buses find each other", func() bool { return first.Routes() > 0 && second.Routes() > 0 })
	var nodes []*node
	for i, b := range []*bus.Bus{first, second} {
		db := openURL(t, cluster.URL)
		t.Cleanup(func() { db.Close() })
		if i == 0 {
			if _, err := schema.Migrate(ctx, db); err != nil {
				t.Fatal(err)
			}
		}
		nodes = append(nodes, startOn(t, db, b, Options{BeatEvery: time.Hour, PollEvery: 100 * time.Millisecond, Shared: true}))
	}
	var convs []Conversation
	for range 8 {
		convs = append(convs, nodes[0].group(t, "ann", "bob"))
	}
	var cursors []string
	var tags []runTag
	for _, n := range nodes {
		tags = append(tags, n.runs.current())
		cursors = append(cursors, n.cursor(t, "bob"))
	}
	const each = 150
	var sent atomic.Int64
	var all sync.WaitGroup
	for i, n := range nodes {
		all.Go(func() {
			for k := range each {
				text := fmt.Sprint(i, ".", k)
				for { // until it is acknowledged
					_, err := n.Send(context.Background(), "ann", Draft{ConversationID: string(convs[k%len(convs)].ID), Content: &text, ClientMessageID: text})
					if err == nil {
						break
					}
					<-time.After(5 * time.Millisecond)
				}
				sent.Add(1)
			}
		})
	}
	eventually(t, "a part is sent", func() bool { return sent.Load() > each/3 })
	if err := cluster.Shutdown(ctx, postgres.Fast); err != nil {
		t.Fatal(err)
	}
	if err := cluster.Start(ctx); err != nil {
		t.Fatal(err)
	}
	all.Wait()
	for i, n := range nodes {
		eventually(t, "it begins another run", func() bool { return n.runs.current() != tags[i] })
		if losses := testutil.ToFloat64(n.metrics.losses); losses != 0 {
			t.Errorf("node %d saw %v losses, of none", i, losses)
		}
		handled := 0
		for _, cv := range convs {
			for k, ch := range slices.DeleteFunc(n.handled(t, cv.ID), func(ch Change) bool { return ch.Kind != MessageNew }) {
				if handled++; ch.Message.Seq != int64(k+1) {
					t.Errorf("node %d handled message %d of a conversation in place of %d", i, ch.Message.Seq, k+1)
				}
			}
		}
		if handled != 2*each {
			t.Errorf("node %d handled %d messages of %d", i, handled, 2*each)
		}
		for _, cursor := range cursors {
			if texts, reset := n.missed(t, "bob", cursor); reset || len(texts) != 2*each {
				t.Errorf("at node %d a cursor from before brings %d messages, reset %v; want %d", i, len(texts), reset, 2*each)
			}
		}
	}
}

// TestLossSeen takes from a database what its node has handled, as nobody should.
func TestLossSeen(t *testing.T) {
	sqldbtest.Run(t, func(t *testing.T, db *sqldb.DB) {
		n := start(t, db, Options{BeatEvery: time.Hour, PollEvery: 50 * time.Millisecond})
		calls := 0
		n.lost = func() { calls++ }
		cv := n.group(t, "ann", "bob")
		n.send(t, "ann", cv.ID, "1", "")
		before := n.cursor(t, "bob")
		n.send(t, "ann", cv.ID, "2", "")
		gone := n.cursor(t, "bob")
		n.handled(t, cv.ID)
		if err := db.InTx(t.Context(), func(tx *sqldb.Tx) error {
			tx.QueueExec(`UPDATE buckets SET last_pos = last_pos - 1 WHERE bucket = $1`, int64(cv.ID.Bucket()))
			tx.QueueExec(`DELETE FROM messages WHERE seq = 2`)
			tx.QueueExec(`UPDATE conversations SET last_seq = 1, last_pos = last_pos - 1`)
			tx.QueueExec(`UPDATE members SET delivered_seq = 1, read_seq = 1 WHERE read_seq = 2`)
			return tx.Flush(t.Context())
		}); err != nil {
			t.Fatal(err)
		}
		if err := n.beat(t.Context()); err != nil {
			t.Fatal(err)
		}
		if calls != 1 {
			t.Errorf("the loss was told %d times, want once", calls)
		}
		n.send(t, "ann", cv.ID, "3", "")
		n.send(t, "ann", cv.ID, "4", "")
		n.wants(t, "from before", before, "3", "4")
		n.wantsReset(t, "from the time that was lost", gone)
		n.handled(t, cv.ID)
		if err := n.beat(t.Context()); err != nil || calls != 1 {
			t.Errorf("a beat after that: %v, told %d times", err, calls)
		}
	})
}

func tagOf(t testing.TB, cursor string) runTag {
	t.Helper()
	tag, _, err := parseCursor(cursor)
	if err != nil {
		t.Fatal(err)
	}
	return tag
}

// eventually waits for a condition, 30 s at the most.
func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !is(); {
		if time.Now().After(deadline) {
			t.Fatalf("it has not come to this: %s", what)
		}
		<-time.After(5 * time.Millisecond)
	}
}

// modelRun is a row of runs.
type modelRun struct {
	run
	server int
}

// modelDB is a database as runs see it: one bucket, whose positions hold values that are never used twice.
type modelDB struct {
	server int
	log    []int
	runs   map[runTag]modelRun
}

func (d *modelDB) heads() Positions { return Positions{0: int64(len(d.log))} }

func (d *modelDB) end(tag runTag) {
	r := d.runs[tag]
	r.ended, r.heads = true, d.heads()
	d.runs[tag] = r
}

// TestRunsModel takes a database, its nodes and its backups through all that can happen to them: what a client has read
// up to a cursor that holds is what the database has there, always, and a cursor given out by a node that is well is never refused
// without a loss.
func TestRunsModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type node struct {
			tag     runTag
			server  int
			handled []int // what it has seen of the log
		}
		type client struct {
			cursor runTag
			known  []int
			frank  bool // the node's run was open when it gave this out
		}
		db := &modelDB{runs: map[runTag]modelRun{}}
		var backups []modelDB
		var nodes []*node
		var clients []client
		tags, value, servers := byte(0), 0, 0
		begin := func(n *node) {
			tags++
			n.tag, n.server = runTag{tags, byte(len(nodes)), byte(value), byte(servers)}, db.server
			n.handled = slices.Clone(db.log)
			db.runs[n.tag] = modelRun{run: run{known: true}, server: db.server}
		}
		meet := func() { // what comes first on a connection to a server
			for tag, r := range db.runs {
				if !r.ended && r.server != db.server {
					db.end(tag)
				}
			}
		}
		pick := func() *node {
			if len(nodes) == 0 {
				t.Skip("no node") // allowed: rapid draws another action instead
			}
			return rapid.SampledFrom(nodes).Draw(t, "node")
		}
		t.Repeat(map[string]func(*rapid.T){
			"start": func(t *rapid.T) {
				meet()
				n := &node{}
				nodes = append(nodes, n)
				begin(n)
			},
			"stop": func(t *rapid.T) {
				n := pick()
				meet()
				if !db.runs[n.tag].ended && db.runs[n.tag].known {
					db.end(n.tag)
				}
				nodes = slices.DeleteFunc(nodes, func(o *node) bool { return o == n })
			},
			"kill":   func(t *rapid.T) { n := pick(); nodes = slices.DeleteFunc(nodes, func(o *node) bool { return o == n }) },
			"silent": func(t *rapid.T) { n := pick(); meet(); db.end(n.tag) },
			"write": func(t *rapid.T) {
				n := pick()
				meet()
				value++
				db.log = append(db.log, value)
				if n.server == db.server {
					n.handled = slices.Clone(db.log)
				}
			},
			"hear": func(t *rapid.T) { // a hint, or a read of the log
				n := pick()
				if len(n.handled) < len(db.log) {
					n.handled = append(slices.Clone(n.handled), db.log[len(n.handled):]...)
				}
			},
			"beat": func(t *rapid.T) {
				n := pick()
				meet()
				if r := db.runs[n.tag]; r.ended || !r.known {
					begin(n)
				}
			},
			"give": func(t *rapid.T) {
				n := pick()
				r := db.runs[n.tag]
				clients = append(clients, client{n.tag, slices.Clone(n.handled), r.known && !r.ended && n.server == db.server})
			},
			"backup": func(t *rapid.T) {
				backups = append(backups, modelDB{log: slices.Clone(db.log), runs: maps.Clone(db.runs)})
			},
			"restore": func(t *rapid.T) { // with running nodes it is a failing over
				if len(backups) == 0 {
					t.Skip("no backup") // allowed: rapid draws another action instead
				}
				k := rapid.IntRange(0, len(backups)-1).Draw(t, "backup")
				servers++
				db = &modelDB{server: servers, log: slices.Clone(backups[k].log), runs: maps.Clone(backups[k].runs)}
				for i := range clients {
					clients[i].frank = false
				}
			},
			"": func(t *rapid.T) {
				for _, c := range clients {
					before := modelDB{server: db.server, log: db.log, runs: maps.Clone(db.runs)}
					meet() // the node that is asked has connected
					holds := db.runs[c.cursor].holds(Positions{0: int64(len(c.known))}, db.heads())
					db.runs = before.runs
					if holds && !slices.Equal(c.known, db.log[:len(c.known)]) {
						t.Fatalf("a client that knows %v goes on from there in %v", c.known, db.log)
					}
					if c.frank && !holds {
						t.Fatalf("a client that knows %v is refused, with the log %v and nothing lost", c.known, db.log)
					}
				}
			},
		})
	})
}
