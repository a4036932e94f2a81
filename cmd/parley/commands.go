package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"parley/internal/auth"
	"parley/internal/chat"
	"parley/internal/config"
	"parley/internal/id"
	"parley/internal/schema"
	"parley/internal/server"
	"parley/internal/sqldb"
)

type serveCmd struct{ config.Serve }

func (c *serveCmd) Run(ctx context.Context, o output) error {
	return server.Run(ctx, &c.Serve, o.logger(c.Log), func(addr string) {
		host, port, err := net.SplitHostPort(addr)
		if err == nil && net.ParseIP(host).IsUnspecified() {
			addr = net.JoinHostPort("localhost", port)
		}
		// The first two lines are the tutorial's.
		fmt.Fprintf(o.out, "Chat server running on port %s\nWebSocket server ready\n\n", port)
		fmt.Fprintf(o.out, "  Parley %s  http://%s\n", version, addr)
		fmt.Fprintf(o.out, "  REST reference  http://%s/docs\n", addr)
		if c.OwnSecret() {
			data := ""
			if c.Data.Data != "./data" {
				data = " --data " + c.Data.Data
			}
			fmt.Fprintf(o.out, "  A token for ann:  %s token --user ann%s\n\n", os.Args[0], data)
		} else {
			fmt.Fprintf(o.out, "  Users sign in with tokens of your own service.\n\n")
		}
	})
}

type tokenCmd struct {
	config.File
	config.Data
	config.Tokens

	User string        `required:"" placeholder:"ID" help:"The user's id, in the words of your application."`
	Name string        `placeholder:"NAME" help:"The user's display name."`
	Role string        `placeholder:"ROLE" help:"user, admin or guest."`
	TTL  time.Duration `default:"24h" help:"How long the token is good for."`
}

func (c *tokenCmd) Run(o output) error {
	u, err := id.ParseUser(c.User)
	if err != nil {
		return errors.New("--user must have 1 to 128 bytes and no control characters")
	}
	secret, err := server.Secret(c.Tokens, c.Data)
	if err != nil {
		return err
	}
	if len(secret) == 0 {
		return errors.New("tokens are signed by another service (--jwt-key-file or --jwks-url), which must make them")
	}
	claims := auth.Claims{Sub: u, Name: c.Name, Role: auth.Role(c.Role), TTL: c.TTL, Issuer: c.JWTIssuer}
	if len(c.JWTAudience) > 0 {
		claims.Audience = c.JWTAudience[0]
	}
	token, err := auth.Mint(secret, claims, time.Now())
	if err != nil {
		return err
	}
	fmt.Fprintln(o.out, token)
	return nil
}

type migrateCmd struct {
	config.File
	config.Log
	config.Data
	config.Database

	Check bool `help:"Change nothing; fail when something is pending."`
}

func (c *migrateCmd) Run(ctx context.Context, o output) error {
	if c.Check {
		db, err := sqldb.Open(ctx, sqldb.Options{URL: c.Source(c.Data)})
		if err != nil {
			return err
		}
		pending, err := schema.Pending(ctx, db)
		if err = errors.Join(err, db.Close()); err == nil && pending {
			err = errors.New("migrations are pending; run parley migrate")
		}
		return err
	}
	db, err := server.OpenDatabase(ctx, c.Database, c.Data, o.logger(c.Log))
	if err != nil {
		return err
	}
	fmt.Fprintln(o.out, "The database is up to date.")
	return db.Close()
}

type doctorCmd struct{ config.Serve }

// doctorTimeout bounds the verification of a database, which reads all of it.
const doctorTimeout = time.Hour

func (c *doctorCmd) Run(ctx context.Context, o output) error {
	fmt.Fprintln(o.out, "Settings:")
	if err := config.Dump(o.out, &c.Serve); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, doctorTimeout)
	defer cancel()
	db, err := sqldb.Open(ctx, sqldb.Options{URL: c.Source(c.Data)})
	if err != nil {
		return err
	}
	pending, err := schema.Pending(ctx, db)
	switch {
	case err != nil:
	case pending:
		err = errors.New("migrations are pending; run parley migrate")
	default:
		err = chat.Check(ctx, db)
	}
	if err = errors.Join(err, db.Close()); err != nil {
		return err
	}
	fmt.Fprintf(o.out, "The database (%s) keeps its promises.\n", db.Dialect())
	return nil
}
