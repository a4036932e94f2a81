// Command with runs a command beside a private PostgreSQL cluster that lives as long as the command does:
//
//	go run ./test/postgres/with -- go test ./...
//
// The command finds the cluster's URL in PARLEY_TEST_POSTGRES_URL. Its exit code is passed on. With -find, no command is
// run: the folder of the server binaries that would be used is printed, and the exit code is 1 if there is none.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"

	"parley/test/postgres"
)

func main() {
	find := flag.Bool("find", false, "print the folder of the server binaries, and exit")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: with [-find] -- command [argument ...]")
		flag.PrintDefaults()
	}
	flag.Parse()
	code, err := run(*find, flag.Args())
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(code)
}

// run returns the exit code of the command, or 1 and what kept it from running.
func run(find bool, command []string) (int, error) {
	if find {
		bin, err := postgres.Find()
		if err != nil {
			return 1, err
		}
		fmt.Printf("%s (PostgreSQL %d)\n", bin.Dir, bin.Version)
		return 0, nil
	}
	if len(command) == 0 {
		flag.Usage()
		return 2, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	cluster, err := postgres.Start(ctx, postgres.Options{})
	cancel()
	if err != nil {
		return 1, err
	}
	defer cluster.Stop()

	cmd := exec.Command(command[0], command[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), "PARLEY_TEST_POSTGRES_URL="+cluster.URL)
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	if err := cmd.Start(); err != nil {
		return 1, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for {
		select {
		case s := <-signals:
			if s == syscall.SIGTERM { // an interrupt from the terminal has reached the command already
				cmd.Process.Signal(s) // it may have ended by itself, and then there is nobody to tell
			}
		case err := <-ended:
			var exit *exec.ExitError
			if err == nil || errors.As(err, &exit) {
				if code := cmd.ProcessState.ExitCode(); code >= 0 {
					return code, nil
				}
				return 1, fmt.Errorf("%s: %w", command[0], err) // ended by a signal
			}
			return 1, err
		}
	}
}
