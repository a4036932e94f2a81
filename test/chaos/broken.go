package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"parley/test/chaos/history"
	"parley/test/chaos/world"
)

// broken is a Parley that breaks a promise on purpose. A harness that does not find it proves nothing about the Parley that it finds
// nothing in.
type broken struct {
	name  string
	edits []textEdit
	trial []trial
}

// textEdit replaces old, which the file must contain exactly once, by new. It is done to a copy: the product has no switch for it.
type textEdit struct{ file, old, new string }

// trial is a run that must find violations of a kind.
type trial struct {
	name     string
	want     string
	faults   []string
	duration time.Duration
	// sendsOnly keeps other changes from the database, each of which makes those behind it wait for a sync of its own, so that even what
	// is acknowledged too early comes late.
	sendsOnly bool
}

// brokenBuilds are all of them. Where a file has moved on, the text to be replaced has to follow it.
var brokenBuilds = []broken{
	{
		// Between the acknowledgement and what a commit writes lies so little that hardly a kill falls into it: the sleep makes it more.
		name: "ack-before-commit",
		edits: []textEdit{{
			file: "internal/chat/send.go",
			old: `		b.log = l
		return c.flow.Run(ctx, createMessage, createStatus, b)
`,
			new: `		b.log = l
		if err := c.flow.Run(ctx, createMessage, createStatus, b); err != nil {
			return err
		}
		for _, s := range b.items {
			if s.change != nil {
				s.answer(RowForSender(s.change.Row, s.message.ClientMessageID), nil)
			}
		}
		time.Sleep(50 * time.Millisecond)
		return nil
`,
		}},
		trial: []trial{
			{name: "slow-sync", want: history.EarlyAck, faults: []string{"sync-slow"}, duration: 3 * time.Second, sendsOnly: true},
			{name: "kill", want: history.Lost, faults: []string{"kill"}, duration: 8 * time.Second},
		},
	},
	{
		name: "no-dedupe",
		edits: []textEdit{{
			file: "internal/chat/send.go",
			old:  `EncryptedContent: d.EncryptedContent, ClientMessageID: d.ClientMessageID,`,
			new:  `EncryptedContent: d.EncryptedContent,`,
		}},
		trial: []trial{{name: "repetitions", want: history.Doubled, duration: 5 * time.Second}},
	},
	{
		name: "replay-without-changes",
		edits: []textEdit{{
			file: "internal/chat/sync.go",
			old:  `[]messageRun{r.made, r.changed}`,
			new:  `[]messageRun{r.made}`,
		}},
		trial: []trial{{name: "resuming", want: history.Gap, duration: 8 * time.Second}},
	},
}

// catch builds each broken Parley and has every trial find what is wrong with it.
func catch(ctx context.Context, o options) error {
	type job struct {
		trial
		options
		name string
	}
	var jobs []job
	for _, b := range brokenBuilds {
		folder := filepath.Join(o.folder, b.name)
		binary, err := b.build(ctx, folder)
		if err != nil {
			return fmt.Errorf("the broken build %s: %w", b.name, err)
		}
		for _, t := range b.trial {
			next := o
			next.world = world.Options{Kind: world.SQLite, Binary: binary}
			next.folder, next.faults, next.duration, next.hasty = filepath.Join(folder, t.name), t.faults, t.duration, true
			next.sendsOnly = t.sendsOnly
			if next.faults == nil {
				next.faults = []string{}
			}
			jobs = append(jobs, job{t, next, b.name})
		}
	}
	errs := make([]error, len(jobs))
	var running sync.WaitGroup
	for i, j := range jobs {
		running.Go(func() {
			out, err := live(ctx, j.options)
			if out.Found[j.want] == 0 {
				errs[i] = fmt.Errorf("the broken build %s was not caught by %s: no violation of the kind %q: %w", j.name, j.trial.name, j.want,
					errors.Join(err, report(out, err)))
				return
			}
			shown := out.Report.Violations[0]
			for _, v := range out.Report.Violations {
				if v.Kind == j.want {
					shown = v
				}
			}
			fmt.Printf("the broken build %s is caught by %s: %s %d, as %s\n", j.name, j.trial.name, j.want, out.Found[j.want], shown.What)
		})
	}
	running.Wait()
	return errors.Join(errs...)
}

// build makes the binary in a folder, from a copy of the files that are edited.
func (b *broken) build(ctx context.Context, folder string) (binary string, err error) {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return "", err
	}
	overlay := struct{ Replace map[string]string }{map[string]string{}}
	for i, e := range b.edits {
		original, err := filepath.Abs(e.file)
		if err != nil {
			return "", err
		}
		edited, err := e.apply(original)
		if err != nil {
			return "", err
		}
		// Names in an overlay are absolute, and so mean the same wherever the build is run.
		copied, err := filepath.Abs(filepath.Join(folder, fmt.Sprintf("%d-%s", i, filepath.Base(e.file))))
		if err != nil {
			return "", err
		}
		if err := os.WriteFile(copied, []byte(edited), 0o644); err != nil {
			return "", err
		}
		overlay.Replace[original] = copied
	}
	text, err := json.Marshal(overlay)
	if err != nil {
		return "", err
	}
	list := filepath.Join(folder, "overlay.json")
	if err := os.WriteFile(list, text, 0o644); err != nil {
		return "", err
	}
	binary = filepath.Join(folder, "parley")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-overlay", list, "-o", binary, "./cmd/parley")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return binary, nil
}

// apply returns the edited text of the file of that name.
func (e *textEdit) apply(name string) (string, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return "", err
	}
	if n := strings.Count(string(text), e.old); n != 1 {
		return "", fmt.Errorf("%s contains %d times, not once, what is to be replaced: has it moved on?\n%s", e.file, n, e.old)
	}
	return strings.Replace(string(text), e.old, e.new, 1), nil
}
