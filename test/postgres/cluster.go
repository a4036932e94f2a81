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
	// Port is that of the server, on loopback; 0: a free one.
	Port int
}

// A Cluster is a private PostgreSQL server. It runs, unless [Cluster.Shutdown] ended it and until [Cluster.Start] starts it again.
// Its methods are for one goroutine.
type Cluster struct {
	// URL leads to the cluster's empty maintenance database "postgres", as its superuser, over loopback TCP.
	URL string
	// SocketDir holds its Unix socket.
	SocketDir string
	// Version is the server's major version.
	Version int

	dir      string
	bin      Binaries
	owner    *syscall.Credential
	password string
	port     int
	watchdog *exec.Cmd
	lifeline *os.File // write end of the watchdog's pipe: while it is open, the folder stays, and each line starts the server
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
	for range startTries {
		var c *Cluster
		if c, err = create(ctx, bin, owner, o); err == nil {
			return c, nil
		}
		if !errors.Is(err, syscall.EADDRINUSE) || o.Port != 0 {
			break
		}
	}
	return nil, fmt.Errorf("postgres: %w", err)
}

// create makes one attempt, and leaves nothing behind if it fails. Errors: syscall.EADDRINUSE if somebody took the port
// between its choice and its use.
func create(ctx context.Context, bin Binaries, owner *syscall.Credential, o Options) (_ *Cluster, err error) {
	c, err := newCluster(bin, owner, o)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			c.Stop()
		}
	}()
	c.password = rand.Text()
	passwordFile := filepath.Join(c.dir, "password")
	if err := os.WriteFile(passwordFile, []byte(c.password), 0o600); err != nil {
		return nil, err
	}
	if err := giveTo(owner, c.dir); err != nil {
		return nil, err
	}
	// Without a sync here a crash of the machine loses this cluster, which nobody would miss.
	if err := c.run(ctx, "initdb", "--no-sync", "-D", c.data(), "-E", "UTF8", "--locale=C.UTF-8", "-U", superuser,
		"-A", "scram-sha-256", "--pwfile", passwordFile); err != nil {
		return nil, err
	}
	return c, c.launch(ctx, o.Settings)
}

// newCluster makes the folder of a cluster, with all but its data in it. Its caller stops it, if anything fails later.
func newCluster(bin Binaries, owner *syscall.Credential, o Options) (_ *Cluster, err error) {
	c := &Cluster{Version: bin.Version, bin: bin, owner: owner, port: o.Port}
	if c.port == 0 {
		if c.port, err = freePort(); err != nil {
			return nil, err
		}
	}
	if c.dir, err = makeFolder(owner); err != nil {
		return nil, err
	}
	c.SocketDir = c.dir
	if owner != nil && !openToAll(filepath.Join(bin.Dir, "postgres")) {
		// An installation in root's home cannot be run by anybody else, so the cluster gets a copy.
		install := filepath.Join(c.dir, "install")
		if err := os.CopyFS(install, os.DirFS(filepath.Dir(bin.Dir))); err != nil {
			c.Stop()
			return nil, fmt.Errorf("copy of the server binaries: %w", err)
		}
		c.bin.Dir = filepath.Join(install, "bin")
	}
	return c, giveTo(owner, c.dir)
}

// run runs one of the server's programs to its end, as the cluster's owner.
func (c *Cluster) run(ctx context.Context, program string, args ...string) error {
	cmd := exec.CommandContext(ctx, filepath.Join(c.bin.Dir, program), args...)
	cmd.Dir = c.dir
	cmd.SysProcAttr = runAs(c.owner)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", program, err, out)
	}
	return nil
}

func (c *Cluster) data() string { return filepath.Join(c.dir, "data") }

// watchdogScript starts the server at each line of its standard input; when that ends, it ends the server and removes the folder.
// $1 is the folder, the rest the server's command line. An immediate shutdown is right for data that nobody will read.
const watchdogScript = `dir=$1; shift
while read -r line; do
	"$@" </dev/null &
	server=$!
done
kill -QUIT "$server" 2>/dev/null
wait
cd / && rm -rf "$dir"`

// launch starts the watchdog, and the server under it.
func (c *Cluster) launch(ctx context.Context, settings []string) error {
	log, err := os.OpenFile(c.logPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	stdin, lifeline, err := os.Pipe()
	if err != nil {
		return err
	}
	defer stdin.Close()

	args := []string{"-c", watchdogScript, "sh", c.dir, filepath.Join(c.bin.Dir, "postgres"), "-D", c.data()}
	for _, s := range append([]string{
		"listen_addresses=127.0.0.1",
		"port=" + strconv.Itoa(c.port),
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
	c.watchdog.SysProcAttr = runAs(c.owner)
	c.watchdog.SysProcAttr.Setsid = true // an interrupt typed at the terminal is for the tests, which then end us
	if err := c.watchdog.Start(); err != nil {
		lifeline.Close()
		c.watchdog = nil
		return err
	}
	c.lifeline = lifeline
	u := url.URL{Scheme: "postgres", User: url.UserPassword(superuser, c.password),
		Host: net.JoinHostPort("127.0.0.1", strconv.Itoa(c.port)), Path: "postgres", RawQuery: "sslmode=disable"}
	c.URL = u.String()
	return c.start(ctx, func(log []byte) error {
		switch {
		case !bytes.Contains(log, []byte("FATAL:")):
			return nil
		case bytes.Contains(log, []byte("could not bind")):
			return fmt.Errorf("port %d: %w", c.port, syscall.EADDRINUSE)
		}
		return fmt.Errorf("the server did not start:\n%s", log)
	})
}

// start has the watchdog start the server, and returns once it accepts connections, or what failed makes of its log.
func (c *Cluster) start(ctx context.Context, failed func(log []byte) error) error {
	if _, err := c.lifeline.WriteString("start\n"); err != nil {
		return err
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		switch state, err := os.ReadFile(c.pidPath()); {
		case err == nil && bytes.Contains(state, []byte("\nready")):
			return nil
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			return err
		}
		log, _ := os.ReadFile(c.logPath()) // an unreadable log is an empty one
		if err := failed(log); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for the server: %w\n%s", context.Cause(ctx), log[max(0, len(log)-2000):])
		case <-tick.C:
		}
	}
}

func (c *Cluster) pidPath() string { return filepath.Join(c.data(), "postmaster.pid") }

func (c *Cluster) logPath() string { return filepath.Join(c.dir, "log") }

// Port is the server's, on loopback.
func (c *Cluster) Port() int { return c.port }

// PID is the process id of the postmaster, whose children are all the server's other processes.
func (c *Cluster) PID() (int, error) {
	state, err := os.ReadFile(c.pidPath())
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
