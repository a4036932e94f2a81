package postgres

import (
	"bufio"
	"context"
	"errors"
	"io/fs"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// childVariable makes the test binary start a cluster, print its address and folder, and wait to be killed.
const childVariable = "PARLEY_POSTGRES_TEST_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childVariable) != "" {
		c, err := Start(context.Background(), Options{})
		if err != nil {
			os.Stderr.WriteString(err.Error())
			os.Exit(1)
		}
		os.Stdout.WriteString(c.URL + " " + c.dir + "\n")
		select {}
	}
	os.Exit(m.Run())
}

func TestClusterServesUntilStopped(t *testing.T) {
	c, err := Start(t.Context(), Options{Settings: []string{"fsync=off"}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Stop()
	if !listens(t, c.URL) {
		t.Errorf("nobody listens at %s after Start", redacted(c.URL))
	}
	if _, err := os.Stat(filepath.Join(c.dir, ".s.PGSQL."+port(t, c.URL))); err != nil {
		t.Errorf("no Unix socket: %v", err)
	}
	c.Stop()
	if listens(t, c.URL) {
		t.Errorf("somebody listens at %s after Stop", redacted(c.URL))
	}
	if _, err := os.Stat(c.dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after Stop, the folder: %v, want that it does not exist", err)
	}
	c.Stop()
}

func TestClusterEndsWithItsKilledParent(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	parent := exec.Command(self)
	parent.Env = append(os.Environ(), childVariable+"=1")
	parent.Stderr = os.Stderr
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	parent.Process.Kill() // as kill -9 does; that it was killed is what Wait then reports
	parent.Wait()
	if err != nil {
		t.Fatalf("the parent's first line: %v", err)
	}
	address, dir, _ := strings.Cut(strings.TrimSpace(line), " ")

	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(20 * time.Second)
	for {
		_, err := os.Stat(dir)
		if errors.Is(err, fs.ErrNotExist) && !listens(t, address) {
			return
		}
		select {
		case <-deadline:
			t.Fatalf("20 s after its parent was killed, the cluster still listens (%t) or has its folder (%v)", listens(t, address), err)
		case <-tick.C:
		}
	}
}

func TestStartReportsWhatTheServerSaid(t *testing.T) {
	_, err := Start(t.Context(), Options{Settings: []string{"no_such_setting=1"}})
	if err == nil || !strings.Contains(err.Error(), "no_such_setting") {
		t.Errorf("Start with an unknown setting = %v, want an error that names it", err)
	}
}

func TestFindTakesOnlyTheNamedFolder(t *testing.T) {
	t.Setenv("PARLEY_TEST_POSTGRES_BIN", t.TempDir())
	if bin, err := Find(); err == nil {
		t.Errorf("Find = %+v, want an error, for the named folder is empty", bin)
	}
}

func TestFindNamesTheFix(t *testing.T) {
	if !strings.Contains(ErrNotFound.Error(), "make test-deps") {
		t.Errorf("ErrNotFound = %q, want that it names the fix", ErrNotFound)
	}
}

func TestFolderOfRootIsNotOpenToAll(t *testing.T) {
	dir := t.TempDir()
	inner := filepath.Join(dir, "inner")
	if err := os.Mkdir(inner, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if openToAll(inner) {
		t.Errorf("openToAll(%s) = true below a folder of mode 0700", inner)
	}
	if !openToAll("/") {
		t.Error("openToAll(/) = false")
	}
}

// listens reports whether somebody accepts connections where address, a database URL, points to.
func listens(t *testing.T, address string) bool {
	t.Helper()
	conn, err := net.DialTimeout("tcp", net.JoinHostPort("127.0.0.1", port(t, address)), time.Second)
	if err != nil {
		return false
	}
	conn.Close()
	return true
}

func port(t *testing.T, address string) string {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	return u.Port()
}

func redacted(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return "an unreadable address"
	}
	return u.Redacted()
}
