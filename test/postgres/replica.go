package postgres

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// Replica makes a cluster that begins as a copy of c and follows it, read only, until it is promoted. The primary knows it as name, in
// pg_stat_replication and synchronous_standby_names. It needs pg_basebackup among the server binaries. Settings of c are not taken over.
func (c *Cluster) Replica(ctx context.Context, name string, o Options) (_ *Cluster, err error) {
	// The binaries are those of c, so a copy that was made of them is not copied again; it ends with c's folder.
	bin, err := Find()
	if err != nil {
		return nil, err
	}
	r, err := newCluster(bin, c.owner, o)
	if err != nil {
		return nil, fmt.Errorf("postgres: %w", err)
	}
	defer func() {
		if err != nil {
			r.Stop()
			err = fmt.Errorf("postgres: replica: %w", err)
		}
	}()
	r.password = c.password
	from := fmt.Sprintf("host=127.0.0.1 port=%d user=%s password=%s application_name=%s", c.port, superuser, c.password, name)
	// --write-recovery-conf leaves standby.signal and the way to the primary in the copy.
	if err := r.run(ctx, "pg_basebackup", "--dbname", from, "--pgdata", r.data(), "--checkpoint=fast", "--no-sync",
		"--wal-method=stream", "--write-recovery-conf"); err != nil {
		return nil, err
	}
	return r, r.launch(ctx, o.Settings)
}

// Promote makes a replica a primary, and returns once it has begun to accept writes. PostgreSQL, "Failover": it is what pg_ctl promote
// does, which not every installation has.
func (c *Cluster) Promote(ctx context.Context) error {
	postmaster, err := c.PID()
	if err != nil {
		return err
	}
	file := filepath.Join(c.data(), "promote")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		return fmt.Errorf("postgres: promote: %w", err)
	}
	if err := giveTo(c.owner, file); err != nil {
		return fmt.Errorf("postgres: promote: %w", err)
	}
	if err := syscall.Kill(postmaster, syscall.SIGUSR1); err != nil {
		return fmt.Errorf("postgres: promote: %w", err)
	}
	return wait(ctx, "the promotion", func() bool {
		_, err := os.Stat(filepath.Join(c.data(), "standby.signal"))
		return errors.Is(err, fs.ErrNotExist)
	})
}
