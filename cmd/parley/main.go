package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
	"github.com/lmittmann/tint"
	"github.com/mattn/go-isatty"

	"parley/internal/config"
)

// version is set when the binary is built.
var version = "dev"

type cli struct {
	Serve   serveCmd         `cmd:"" help:"Run the server."`
	Token   tokenCmd         `cmd:"" help:"Print a token with which a user signs in."`
	Migrate migrateCmd       `cmd:"" help:"Bring the database up to date. serve does it too."`
	Doctor  doctorCmd        `cmd:"" help:"Verify the configuration and the database."`
	Version kong.VersionFlag `help:"Print the version." short:"v"`
}

const about = `Parley is a chat server in one binary: messages, history and sync over Socket.IO and REST.

Start it with "parley serve": it keeps its data in ./data and listens on http://127.0.0.1:3000.
Then "parley token --user ann" prints a token with which ann signs in.

Every setting is a flag, an environment variable and a key of parley.yaml; the first that is set counts.`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run is main with what it touches handed in; it returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	if len(args) == 0 {
		args = []string{"--help"}
	}
	code := -1
	var c cli
	parser, err := kong.New(&c, append(config.Options(),
		kong.Name("parley"), kong.Description(about), kong.Writers(stdout, stderr), kong.Vars{"version": version},
		kong.Exit(func(n int) { code = n }), kong.BindTo(ctx, (*context.Context)(nil)), kong.Bind(output{stdout, stderr}))...)
	if err != nil {
		panic("parley: the commands: " + err.Error())
	}
	parsed, err := parser.Parse(args)
	if code >= 0 { // --help or --version was all
		return code
	}
	if err != nil {
		fmt.Fprintf(stderr, "parley: %v\n", err)
		return 2
	}
	if err := parsed.Run(); err != nil {
		fmt.Fprintf(stderr, "parley: %v\n", err)
		return 1
	}
	return 0
}

// output is where commands write: what was asked for, and what is said about it.
type output struct{ out, log io.Writer }

// logger writes lines for people on a terminal, and as configured elsewhere.
func (o output) logger(l config.Log) *slog.Logger {
	if l.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(o.log, &slog.HandlerOptions{Level: l.Level()}))
	}
	if f, ok := o.log.(*os.File); ok && isatty.IsTerminal(f.Fd()) {
		return slog.New(tint.NewTextHandler(o.log, &tint.Options{Level: l.Level(), TimeFormat: time.TimeOnly}))
	}
	return slog.New(slog.NewTextHandler(o.log, &slog.HandlerOptions{Level: l.Level()}))
}
