package sqldb

// Queued is how many wait for their turn to write to a SQLite database.
func Queued(db *DB) int {
	t := &db.engine.(*sqliteEngine).turn
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.urgent) + len(t.others)
}
