package config

import (
	"bytes"
	"errors"
	"flag"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"
)

var update = flag.Bool("update", false, "write the generated documents")

// cli is like the one of cmd/parley: a command that takes all settings, and one that takes some.
type cli struct {
	Serve struct{ Serve } `cmd:"" help:"Serve."`
	Token struct {
		User string `required:""`
		File
		Data
		Tokens
	} `cmd:"" help:"Print a token."`
}

// parse reads a command line in a working directory with the file given, if any, and an environment without ours.
func parse(t *testing.T, file string, args ...string) (*cli, error) {
	t.Helper()
	t.Chdir(t.TempDir())
	if file != "" {
		write(t, "parley.yaml", file)
	}
	var c cli
	k, err := kong.New(&c, append(Options(), kong.Writers(io.Discard, io.Discard), kong.Exit(func(int) { t.Error("exit") }))...)
	if err != nil {
		t.Fatal(err)
	}
	_, err = k.Parse(args)
	return &c, err
}

func mustParse(t *testing.T, file string, args ...string) *cli {
	t.Helper()
	c, err := parse(t, file, args...)
	if err != nil {
		t.Fatalf("parse %q with file %q: %v", args, file, err)
	}
	return c
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestMain(m *testing.M) {
	flag.Parse()
	for _, v := range os.Environ() { // What the machine has set must not decide a test.
		if name, _, _ := strings.Cut(v, "="); strings.HasPrefix(name, "PARLEY_") || name == "PORT" {
			os.Unsetenv(name)
		}
	}
	os.Exit(m.Run())
}

func TestDefaults(t *testing.T) {
	s := mustParse(t, "", "serve").Serve.Serve
	want := Serve{
		Server: Server{
			Listen: "127.0.0.1:3000", DrainTimeout: 30 * time.Second, RateLimits: "on",
			HeaderTimeout: 10 * time.Second, RequestTimeout: time.Minute, IdleTimeout: 2 * time.Minute, HeaderBytesMax: 32 << 10,
		},
		Log:        Log{LogLevel: "info", LogFormat: "text"},
		Data:       Data{Data: "./data"},
		Moderation: Moderation{ModerationWords: List{"spam", "abuse"}},
		Gateway: Gateway{
			PingInterval: 25 * time.Second, PingTimeout: 20 * time.Second, UpgradeTimeout: 10 * time.Second,
			MessageTimeout: 30 * time.Second, WriteTimeout: 10 * time.Second, AuthTimeout: 10 * time.Second, RecoveryTime: 2 * time.Minute, FirstPollTimeout: 10 * time.Second,
			ConnsMax: 100_000, AddressConnsMax: 1000, UserConnsMax: 100, EventsPerSecond: 50, EventsBurst: 200,
			FragmentsMax: 1024, PayloadPacketsMax: 10_000, AttachmentsMax: 10, AttachmentTimeout: 10 * time.Second,
			MaxPayload: 1_000_000, QueueBytesMax: 1 << 20, NamespacesMax: 16, AttachmentBytesMax: 4 << 20,
		},
		Chat: Chat{BatchMax: 256, QueueMax: 8192, QueueTimeMax: 5 * time.Second, ReplayChangesMax: 1000, ReplayBytesMax: 512 << 10, PollInterval: 2 * time.Second},
	}
	if !reflect.DeepEqual(s, want) {
		t.Errorf("defaults:\n%+v\nwant:\n%+v", s, want)
	}
	if got := s.Source(s.Data); got != "sqlite:data/parley.db" {
		t.Errorf("Source = %q", got)
	}
	if !s.OwnSecret() || s.Level() != slog.LevelInfo {
		t.Errorf("OwnSecret, Level = %v, %v", s.OwnSecret(), s.Level())
	}
}

func TestPrecedence(t *testing.T) {
	const file = "log-level: debug\nchat-batch: 7\nmoderation-words: [one, \"two, three\"]\n"
	s := mustParse(t, file, "serve").Serve
	if s.LogLevel != "debug" || s.Chat.BatchMax != 7 || !slices.Equal(s.ModerationWords, []string{"one", "two, three"}) {
		t.Errorf("from the file: %q, %d, %q", s.LogLevel, s.Chat.BatchMax, s.ModerationWords)
	}
	t.Setenv("PARLEY_LOG_LEVEL", "warn")
	t.Setenv("PARLEY_CHAT_BATCH", "8")
	t.Setenv("PARLEY_MODERATION_WORDS", "four , five,")
	s = mustParse(t, file, "serve").Serve
	if s.LogLevel != "warn" || s.Chat.BatchMax != 8 || !slices.Equal(s.ModerationWords, []string{"four", "five"}) {
		t.Errorf("environment over file: %q, %d, %q", s.LogLevel, s.Chat.BatchMax, s.ModerationWords)
	}
	s = mustParse(t, file, "serve", "--log-level=error", "--chat-batch", "9", "--moderation-words=six", "--moderation-words", "seven").Serve
	if s.LogLevel != "error" || s.Chat.BatchMax != 9 || !slices.Equal(s.ModerationWords, []string{"six", "seven"}) {
		t.Errorf("flag over environment: %q, %d, %q", s.LogLevel, s.Chat.BatchMax, s.ModerationWords)
	}
	t.Setenv("PARLEY_LOG_LEVEL", "")
	t.Setenv("PARLEY_CHAT_BATCH", "")
	s = mustParse(t, "log-level: debug", "serve").Serve
	if s.LogLevel != "debug" || s.Chat.BatchMax != 256 {
		t.Errorf("with empty variables: %q, %d", s.LogLevel, s.Chat.BatchMax)
	}
}

func TestEmptyList(t *testing.T) {
	for name, s := range map[string]Serve{
		"flag": mustParse(t, "", "serve", "--moderation-words=").Serve.Serve,
		"file": mustParse(t, "moderation-words: []", "serve").Serve.Serve,
		"text": mustParse(t, `moderation-words: ""`, "serve").Serve.Serve,
	} {
		if len(s.ModerationWords) != 0 {
			t.Errorf("%s: an empty list is %q", name, s.ModerationWords)
		}
	}
}

func TestPort(t *testing.T) {
	t.Setenv("PORT", "8080")
	if got := mustParse(t, "", "serve").Serve.Listen; got != ":8080" {
		t.Errorf("with PORT: %q", got)
	}
	if got := mustParse(t, "listen: 127.0.0.1:1", "serve").Serve.Listen; got != ":8080" {
		t.Errorf("PORT is of the environment, and goes before the file: %q", got)
	}
	if got := mustParse(t, "", "serve", "--listen=127.0.0.1:2").Serve.Listen; got != "127.0.0.1:2" {
		t.Errorf("flag over PORT: %q", got)
	}
	t.Setenv("PARLEY_LISTEN", "127.0.0.1:3")
	if got := mustParse(t, "", "serve").Serve.Listen; got != "127.0.0.1:3" {
		t.Errorf("PARLEY_LISTEN over PORT: %q", got)
	}
	t.Setenv("PARLEY_LISTEN", "")
	t.Setenv("PORT", "http")
	if _, err := parse(t, "", "serve"); err == nil || !strings.Contains(err.Error(), "PORT") {
		t.Errorf("PORT=http: %v", err)
	}
}

func TestOneFileForAllCommands(t *testing.T) {
	secret := strings.Repeat("s", 32)
	c := mustParse(t, "jwt-secret: "+secret+"\nchat-batch: 7\ngateway-max-payload: 2MB\n", "token", "--user=ann")
	if c.Token.JWTSecret != secret || c.Token.Data.Data != "./data" || c.Token.User != "ann" {
		t.Errorf("token: %+v", c.Token)
	}
	t.Setenv("PARLEY_USER", "bob") // No setting: a token is for whom the command names.
	if _, err := parse(t, "", "token"); err == nil {
		t.Error("token without --user succeeded")
	}
}

func TestNamedFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "other.yaml")
	write(t, path, "chat-batch: 7")
	if got := mustParse(t, "chat-batch: 6", "serve", "--config", path).Serve.Chat.BatchMax; got != 7 {
		t.Errorf("--config: %d", got)
	}
	t.Setenv("PARLEY_CONFIG", path)
	if got := mustParse(t, "chat-batch: 6", "serve").Serve.Chat.BatchMax; got != 7 {
		t.Errorf("PARLEY_CONFIG: %d", got)
	}
	if _, err := parse(t, "", "serve", "--config", path+"x"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
}

func TestBadFiles(t *testing.T) {
	for file, want := range map[string]string{
		"jwt_secret: hushhush":                    `line 1: unknown setting "jwt_secret"; the nearest known one is "jwt-secret"`,
		"log-level: info\nlistn: hushhush":        `line 2: unknown setting "listn"; the nearest known one is "listen"`,
		"gateway:\n  ping-interval: 1s":           `line 1: unknown setting "gateway"`,
		"chat-bach: 7":                            `nearest known one is "chat-batch"`,
		strings.Repeat("k", 500) + ": hushhush":   "unknown setting",
		"config: hushhush.yaml":                   `unknown setting "config"`,
		"listen: :1\nlisten: :2":                  `"listen" is set twice`,
		"listen:":                                 `"listen" has no value`,
		"jwt-secret: {hushhush: 1}":               `"jwt-secret" is neither a value nor a list`,
		"api-key: [[hushhush]]":                   `"api-key" is a list of something else`,
		"api-key: &a [x]\njwt-audience: *a":       `"jwt-audience" is neither`,
		"- hushhush":                              "line 1: settings are written as",
		"hushhush":                                "line 1: settings are written as",
		"listen: :1\n---\nlisten: :2":             "more than one document",
		"listen: \"hushhush":                      "yaml",
		"\x00":                                    "yaml",
		"drain-timeout: 30":                       "drain-timeout",
		"chat-batch: many":                        "chat-batch",
		"gateway-max-payload: 1 ponies":           "1MiB",
		"gateway-max-payload: 2TiB":               "1GiB",
		"gateway-max-payload: -1MB":               "gateway-max-payload",
		"log-level: loud":                         "log-level",
		"moderation-fail-closed: perhaps":         "moderation-fail-closed",
		"x: " + strings.Repeat("y", fileBytesMax): "larger",
	} {
		_, err := parse(t, file, "serve")
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("file %.60q: %.300v, want %q", file, err, want)
		} else if strings.Contains(err.Error(), "hushhush") {
			t.Errorf("file %.60q: the error shows a value: %v", file, err)
		}
	}
	for _, file := range []string{"\n", "# nothing\n"} {
		mustParse(t, file, "serve")
	}
}

func TestContradictions(t *testing.T) {
	pg := "--database-url=postgres://u:hushhush@h/db"
	for name, test := range map[string]struct {
		args []string
		want string // a setting that the error names; empty: no error
	}{
		"routes without listen":    {[]string{"--cluster-routes=nats://n:hushhush@h:1", pg}, "cluster-listen"},
		"nats and cluster":         {[]string{"--nats-url=nats://n:hushhush@h:1", "--cluster-listen=:6222", pg}, "nats-url"},
		"cluster on SQLite":        {[]string{"--cluster-listen=:6222"}, "PARLEY_CLUSTER_LISTEN"},
		"cluster":                  {[]string{"--cluster-listen=:6222", "--cluster-routes=nats://a:6222,nats://b:6222", pg}, ""},
		"outside NATS on SQLite":   {[]string{"--nats-url=nats://h:4222"}, ""},
		"database of another kind": {[]string{"--database-url=mysql://u:hushhush@h/db"}, "database-url"},
		"short secret":             {[]string{"--jwt-secret=hushhush"}, "jwt-secret"},
		"secret and JWKS":          {[]string{"--jwt-secret=" + strings.Repeat("s", 32), "--jwks-url=https://id.example.com/jwks"}, ""},
		"short key":                {[]string{"--api-key=" + strings.Repeat("k", 16) + ",hushhush"}, "api-key"},
		"listen without port":      {[]string{"--listen=localhost"}, "listen"},
		"listen on a bad port":     {[]string{"--listen=:70000"}, "listen"},
		"listen on any port":       {[]string{"--listen=127.0.0.1:0"}, ""},
		"listen on IPv6":           {[]string{"--listen=[::1]:3000"}, ""},
		"no data folder":           {[]string{"--data="}, "data"},
		"origins":                  {[]string{"--cors-origins=https://a.example.com,http://localhost:5173"}, ""},
		"origin with a path":       {[]string{"--cors-origins=https://a.example.com/"}, "cors-origins"},
		"origin without scheme":    {[]string{"--cors-origins=a.example.com"}, "cors-origins"},
		"network":                  {[]string{"--trusted-proxies=10.0.0.0/8,2001:db8::/32,192.0.2.1"}, ""},
		"no network":               {[]string{"--trusted-proxies=10.0.0.0/33"}, "trusted-proxies"},
		"credentials of nobody":    {[]string{"--gateway-credentials"}, "gateway-credentials"},
		"credentials":              {[]string{"--gateway-credentials", "--cors-origins=https://a.example.com"}, ""},
		"no cookie":                {[]string{"--gateway-cookie=a b"}, "gateway-cookie"},
		"rates on or off":          {[]string{"--rate-limits=maybe"}, "rate-limits"},
		"no heartbeat":             {[]string{"--gateway-ping-interval=0s"}, "gateway-ping-interval"},
		"negative time":            {[]string{"--drain-timeout=-5s"}, "drain-timeout"},
		"no batch":                 {[]string{"--chat-batch=0"}, "chat-batch"},
		"tiny payload":             {[]string{"--gateway-max-payload=1"}, "gateway-max-payload"},
		"queue below replay":       {[]string{"--gateway-queue-bytes=64KiB"}, "gateway-queue-bytes"},
	} {
		_, err := parse(t, "", append([]string{"serve"}, test.args...)...)
		switch {
		case test.want == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
			t.Errorf("%s: %v, want an error that names %s", name, err, test.want)
		case err != nil && strings.Contains(err.Error(), "hushhush"):
			t.Errorf("%s: the error shows a secret: %v", name, err)
		}
	}
	_, err := parse(t, "", "serve", "--chat-batch=0", "--jwt-secret=x")
	if err == nil || !strings.Contains(err.Error(), "chat-batch") || !strings.Contains(err.Error(), "jwt-secret") {
		t.Errorf("two faults: %v, want both named", err)
	}
}

func TestDumpShowsNoSecret(t *testing.T) {
	s := mustParse(t, "", "serve",
		"--jwt-secret="+strings.Repeat("hushhush", 4), "--api-key=hushhushhushhush,hushhush-hushhush",
		"--database-url=postgres://parley:hushhush@db:5432/parley?sslpassword=hushhush",
		"--cluster-listen=nats://n:hushhush@0.0.0.0:6222", "--cluster-routes=nats://n:hushhush@a:6222,n:hushhush@b:6222",
		"--jwks-url=https://u:hushhush@id.example.com/jwks?key=hushhush").Serve.Serve
	other := s
	other.NATSURL = "nats://u:hushhush@a:4222, nats://u:hushhush@b:4222,nats://u:hush hush@%zz"
	var b bytes.Buffer
	for _, s := range []*Serve{&s, &other} {
		if err := Dump(&b, s); err != nil {
			t.Fatal(err)
		}
	}
	text := b.String()
	if strings.Contains(text, "hush") {
		t.Errorf("a secret is shown:\n%s", text)
	}
	for _, want := range []string{
		"jwt-secret: (set)\n", "api-key: (set)\n", "jwt-key-file: \n", "listen: 127.0.0.1:3000\n", "chat-poll-interval: 2s\n",
		"database-url: postgres://parley:xxxxx@db:5432/parley?xxxxx\n", "moderation-words: spam, abuse\n", "moderation-fail-closed: false\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in:\n%s", want, text)
		}
	}
}

// The names that the wire contract fixes, as far as something uses them.
func TestFixedNames(t *testing.T) {
	var variables []string
	for _, f := range settings(&Serve{}) {
		variables = append(variables, variable(f.Name))
	}
	for _, name := range []string{
		"PARLEY_LISTEN", "PARLEY_DATA", "PARLEY_DATABASE_URL", "PARLEY_NATS_URL", "PARLEY_CLUSTER_LISTEN", "PARLEY_CLUSTER_ROUTES",
		"PARLEY_JWT_SECRET", "PARLEY_JWKS_URL", "PARLEY_JWT_AUDIENCE", "PARLEY_JWT_ISSUER", "PARLEY_API_KEY", "PARLEY_CORS_ORIGINS",
		"PARLEY_LOG_LEVEL",
	} {
		if !slices.Contains(variables, name) {
			t.Errorf("no setting is read from %s", name)
		}
	}
}

func TestEverySettingIsExplained(t *testing.T) {
	for _, f := range settings(&Serve{}) {
		if f.Help == "" || !strings.HasSuffix(f.Help, ".") {
			t.Errorf("%s: %q is no sentence", f.Name, f.Help)
		}
		if !f.IsBool() && f.PlaceHolder == "" {
			t.Errorf("%s: nothing says what its value looks like", f.Name)
		}
		if f.Group == nil || !slices.ContainsFunc(groups, func(g struct{ key, title string }) bool { return g.key == f.Group.Key }) {
			t.Errorf("%s: not in a group", f.Name)
		}
	}
}

func TestHelpTeaches(t *testing.T) {
	t.Setenv("PARLEY_JWT_SECRET", "hushhush")
	help := func(args ...string) string {
		var out bytes.Buffer
		k, err := kong.New(&cli{}, append(Options(), kong.Writers(&out, &out), kong.Exit(func(int) { panic(kong.Exit) }))...)
		if err != nil {
			t.Fatal(err)
		}
		func() {
			defer func() { _ = recover() }() // kong exits after the help
			_, _ = k.Parse(args)
		}()
		return out.String()
	}
	for _, want := range []string{"parley serve", "http://127.0.0.1:3000", "parley token --user ann", "order of precedence"} {
		if text := help("--help"); !strings.Contains(text, want) {
			t.Errorf("--help does not say %q:\n%s", want, text)
		}
	}
	text := help("serve", "--help")
	flat := strings.Join(strings.Fields(text), " ")
	for _, f := range settings(&Serve{}) {
		for _, want := range []string{"--" + f.Name, "$" + variable(f.Name), f.Default} {
			if !strings.Contains(flat, want) {
				t.Errorf("serve --help does not show %q", want)
			}
		}
	}
	for _, g := range groups {
		if !strings.Contains(text, g.title+":") {
			t.Errorf("serve --help has no group %q", g.title)
		}
	}
	if strings.Contains(text, "hushhush") {
		t.Error("the help shows a secret")
	}
}

// held compares a document with what the settings say, or writes it.
func held(t *testing.T, path string, generate func(io.Writer) error) string {
	t.Helper()
	var b bytes.Buffer
	if err := generate(&b); err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(got, b.Bytes()) {
		t.Errorf("%s is not what the settings say (%v): go test ./internal/config -update", path, err)
	}
	return b.String()
}

func TestReference(t *testing.T) {
	text := held(t, "../../docs/reference/configuration.md", Reference)
	for _, f := range settings(&Serve{}) {
		if !strings.Contains(text, "`"+variable(f.Name)+"`") {
			t.Errorf("%s is missing in the reference", f.Name)
		}
	}
}

func TestSample(t *testing.T) {
	text := held(t, "../../parley.sample.yaml", Sample)
	if got, want := mustParse(t, text, "serve").Serve, mustParse(t, "", "serve").Serve; !reflect.DeepEqual(got, want) {
		t.Errorf("the sample says:\n%+v\nwhich are not the defaults:\n%+v", got, want)
	}
	all := regexp.MustCompile(`(?m)^#([a-z])`).ReplaceAllString(text, "$1")
	values, err := parseFile([]byte(all))
	if err != nil {
		t.Fatalf("the sample with all settings: %v", err)
	}
	if len(values) != len(known())-1 {
		t.Errorf("the sample has %d settings, want all %d but config", len(values), len(known()))
	}
}

func FuzzParseFile(f *testing.F) {
	f.Add([]byte("listen: :1"))
	f.Add([]byte("api-key: [a, b]"))
	f.Add([]byte("a: &a [*a]"))
	f.Fuzz(func(t *testing.T, text []byte) {
		values, _ := parseFile(text)
		for name := range values {
			if !known()[name] {
				t.Errorf("unknown setting %q", name)
			}
		}
	})
}
