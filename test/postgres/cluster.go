package postgres

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// superuser is the role that owns the cluster and everything in it.
const superuser = "parley"

// startTries bounds how often a start is tried with another port, when somebody else took the one that was free.
const startTries = 5

// Options say what differs from a cluster as production would have it. The zero value is that cluster.
type Options struct {
	// Settings are extra server settings, each as "name=value", such as "fsync=off" for a test that it is refused.
	Settings []string
}

// A Cluster is a running private PostgreSQL server.
type Cluster struct {
	// URL leads to the cluster's empty maintenance database "postgres", as its superuser, over loopback TCP.
	URL string
	// SocketDir holds its Unix socket.
	SocketDir string
	// Version is the server's major version.
	Version int

	dir      string
	watchdog *exec.Cmd
	lifeline *os.File // write end of the watchdog's pipe: while it is open, the server lives
}

// Start makes a cluster and returns once it accepts connections. Until ctx ends it waits for that; afterwards ctx has no
// say, and [Cluster.Stop] or the end of this process ends the cluster. Errors: [ErrNotFound], or what the server logged.
func Start(ctx context.Context, o Options) (*Cluster, error) {
	bin, err := Find()
	if err != nil {
		return nil, err
	}
	owner, err := clusterOwner()
	if err != nil {
		return nil, fmt.Errorf("postgres: %w", err)
	}
	var c *Cluster
	for range startTries {
		if c, err = start(ctx, bin, owner, o.Settings); !errors.Is(err, syscall.EADDRINUSE) {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("postgres: %w", err)
	}
	return c, nil
}

// start makes one attempt, and leaves nothing behind if it fails. Errors: syscall.EADDRINUSE if somebody took the port
// between its choice and its use.
func start(ctx context.Context, bin Binaries, owner *syscall.Credential, settings []string) (_ *Cluster, err error) {
	dir, err := makeFolder(owner)
	if err != nil {
		return nil, err
	}
	c := &Cluster{dir: dir, SocketDir: dir, Version: bin.Version}
	defer func() {
		if err != nil {
			c.Stop()
		}
	}()

	if owner != nil && !openToAll(filepath.Join(bin.Dir, "postgres")) {
		// An installation in root's home cannot be run by anybody else, so the cluster gets a copy.
		install := filepath.Join(dir, "install")
		if err := os.CopyFS(install, os.DirFS(filepath.Dir(bin.Dir))); err != nil {
			return nil, fmt.Errorf("copy of the server binaries: %w", err)
		}
		bin.Dir = filepath.Join(install, "bin")
	}
	password := rand.Text()
	passwordFile := filepath.Join(dir, "password")
	if err := os.WriteFile(passwordFile, []byte(password), 0o600); err != nil {
		return nil, err
	}
	if err := giveTo(owner, dir); err != nil {
		return nil, err
	}

	// Without a sync here a crash of the machine loses this cluster, which nobody would miss.
	initdb := exec.CommandContext(ctx, filepath.Join(bin.Dir, "initdb"), "--no-sync", "-D", filepath.Join(dir, "data"),
		"-E", "UTF8", "--locale=C.UTF-8", "-U", superuser, "-A", "scram-sha-256", "--pwfile", passwordFile)
	initdb.Dir = dir
	initdb.SysProcAttr = runAs(owner)
	if out, err := initdb.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("initdb: %w\n%s", err, out)
	}
	port, err := c.launch(ctx, bin, owner, settings)
	if err != nil {
		return nil, err
	}
	u := url.URL{Scheme: "postgres", User: url.UserPassword(superuser, password),
		Host: net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), Path: "postgres", RawQuery: "sslmode=disable"}
	c.URL = u.String()
	return c, nil
}

// watchdogScript runs the server until its own standard input ends, then ends it and removes the folder.
// $1 is the folder, the rest the server's command line. An immediate shutdown is right for data that nobody will read.
const watchdogScript = `dir=$1; shift
"$@" </dev/null &
server=$!
cat >/dev/null
kill -QUIT "$server" 2>/dev/null
wait "$server"
cd / && rm -rf "$dir"`

// launch starts the server on a free port under its watchdog and waits until it is ready.
func (c *Cluster) launch(ctx context.Context, bin Binaries, owner *syscall.Credential, settings []string) (port int, err error) {
	port, err = freePort()
	if err != nil {
		return 0, err
	}
	data := filepath.Join(c.dir, "data")
	logPath := filepath.Join(c.dir, "log")
	log, err := os.OpenFile(logPath, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return 0, err
	}
	defer log.Close()
	stdin, lifeline, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer stdin.Close()

	args := []string{"-c", watchdogScript, "sh", c.dir, filepath.Join(bin.Dir, "postgres"), "-D", data}
	for _, s := range append([]string{
		"listen_addresses=127.0.0.1",
		"port=" + strconv.Itoa(port),
		"unix_socket_directories=" + c.dir,
		"max_connections=200",
	}, settings...) {
		args = append(args, "-c", s)
	}
	c.watchdog = exec.Command("/bin/sh", args...)
	c.watchdog.Dir = c.dir
	c.watchdog.Stdin = stdin
	// The output goes to a file, for one that inherited ours would keep "go test" waiting for its end.
	c.watchdog.Stdout, c.watchdog.Stderr = log, log
	c.watchdog.SysProcAttr = runAs(owner)
	c.watchdog.SysProcAttr.Setsid = true // an interrupt typed at the terminal is for the tests, which then end us
	if err := c.watchdog.Start(); err != nil {
		lifeline.Close()
		c.watchdog = nil
		return 0, err
	}
	c.lifeline = lifeline

	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		switch state, err := os.ReadFile(filepath.Join(data, "postmaster.pid")); {
		case err == nil && bytes.Contains(state, []byte("\nready")):
			return port, nil
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			return 0, err
		}
		out, _ := os.ReadFile(logPath) // an unreadable log is an empty one
		if bytes.Contains(out, []byte("FATAL:")) {
			if bytes.Contains(out, []byte("could not bind")) {
				return 0, fmt.Errorf("port %d: %w", port, syscall.EADDRINUSE)
			}
			return 0, fmt.Errorf("the server did not start:\n%s", out)
		}
		select {
		case <-ctx.Done():
			return 0, fmt.Errorf("waiting for the server: %w\n%s", context.Cause(ctx), out)
		case <-tick.C:
		}
	}
}

// PID is the process id of the postmaster, whose children are all the server's other processes.
func (c *Cluster) PID() (int, error) {
	state, err := os.ReadFile(filepath.Join(c.dir, "data", "postmaster.pid"))
	if err != nil {
		return 0, fmt.Errorf("postgres: %w", err)
	}
	first, _, _ := bytes.Cut(state, []byte("\n"))
	return strconv.Atoi(string(first))
}

// Stop ends the server at once, with no regard for its clients, and removes its folder. It may be called again.
func (c *Cluster) Stop() {
	if c.lifeline != nil {
		c.lifeline.Close() // its only use was to be open
		c.watchdog.Wait()  // the server's exit status after an immediate shutdown says nothing
		c.lifeline = nil
	}
	// The watchdog has removed it, unless it never ran or may not write the parent folder.
	os.RemoveAll(c.dir)
}

// clusterOwner is who must run the server: nil for the caller, or the credential of another user where the caller is root.
func clusterOwner() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err := strconv.ParseUint(u.Uid, 10, 32)
		if err != nil {
			return nil, err
		}
		gid, err := strconv.ParseUint(u.Gid, 10, 32)
		if err != nil {
			return nil, err
		}
		return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
	}
	return nil, errors.New("PostgreSQL refuses to run as root, and there is neither a user postgres nor nobody: run the tests as another user")
}

func runAs(owner *syscall.Credential) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: owner}
}

// giveTo hands everything under dir to owner, if the server runs as somebody else.
func giveTo(owner *syscall.Credential, dir string) error {
	if owner == nil {
		return nil
	}
	return filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, int(owner.Uid), int(owner.Gid))
	})
}

// makeFolder makes the cluster's temporary folder where its owner can reach it, with a path short enough for a socket:
// the address of a Unix socket holds about 100 bytes.
func makeFolder(owner *syscall.Credential) (string, error) {
	base := os.TempDir()
	if len(base) > 60 || owner != nil && !openToAll(base) {
		base = "/tmp"
	}
	return os.MkdirTemp(base, "parley-pg-")
}

// openToAll reports whether any user may pass through or run path: it and all folders above it have the bit for it.
func openToAll(path string) bool {
	for {
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm()&0o001 == 0 {
			return false
		}
		parent := filepath.Dir(path)
		if parent == path {
			return true
		}
		path = parent
	}
}

// freePort returns a port of 127.0.0.1 that nobody listened on a moment ago.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}
