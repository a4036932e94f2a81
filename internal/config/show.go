package config

import (
	"fmt"
	"io"
	"net/url"
	"reflect"
	"strings"

	"github.com/alecthomas/kong"
)

const description = `A self-hosted chat backend.

Start it with "parley serve": it needs no configuration, keeps its data in ./data and
listens on http://127.0.0.1:3000. Get a token for a user with "parley token --user ann",
run in the same folder, and hand it to a Socket.IO client.

Every setting is a flag, a variable of the environment (--jwt-secret is $PARLEY_JWT_SECRET)
and a key of parley.yaml (jwt-secret), in this order of precedence. Durations are written
as 30s or 5m, sizes as 1MB or 512KiB, lists with commas.`

// Options make a kong parser read the settings from the environment and the file, and help with them. They are
// for one parser.
func Options() []kong.Option {
	r := &resolver{}
	options := []kong.Option{
		kong.Name("parley"),
		kong.Description(description),
		kong.WithBeforeResolve(r.load),
		kong.Resolvers(r),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 120, NoAppDescFormat: true}),
		kong.ValueFormatter(help),
	}
	var titles []kong.Group
	for _, g := range groups {
		titles = append(titles, kong.Group{Key: g.key, Title: g.title + ":"})
	}
	return append(options, kong.ExplicitGroups(titles))
}

// help is the sentence of a flag, with its default and variable.
func help(v *kong.Value) string {
	if v.Flag == nil || !known()[v.Name] {
		return kong.DefaultHelpValueFormatter(v)
	}
	text := v.Help
	if v.Default != "" {
		text += " Default: " + v.Default + "."
	}
	return text + " ($" + variable(v.Name) + ")"
}

// Dump writes every setting and its value, a line each. Of a secret it tells whether there is one; URLs are shown without
// passwords and queries.
func Dump(w io.Writer, s *Serve) error {
	for _, f := range settings(s) {
		if _, err := fmt.Fprintf(w, "%s: %s\n", f.Name, shown(f)); err != nil {
			return err
		}
	}
	return nil
}

func shown(f *kong.Flag) string {
	if f.Tag.Has("secret") {
		if f.Target.Len() == 0 {
			return "(not set)"
		}
		return "(set)"
	}
	if f.Target.Kind() == reflect.Slice {
		items := make([]string, f.Target.Len())
		for i := range items {
			items[i] = redacted(f.Target.Index(i).String())
		}
		return strings.Join(items, ", ")
	}
	if f.Target.Kind() != reflect.String {
		return fmt.Sprint(f.Target.Interface())
	}
	items := strings.Split(f.Target.String(), ",") // nats-url may hold several
	for i := range items {
		items[i] = redacted(items[i])
	}
	return strings.Join(items, ",")
}

// redacted takes out of a URL what may be secret.
func redacted(s string) string {
	if !strings.Contains(s, "://") && !strings.Contains(s, "@") {
		return s
	}
	u, err := url.Parse(strings.TrimSpace(s))
	if err != nil || u.Host == "" {
		return "(an unreadable URL)"
	}
	if u.RawQuery != "" {
		u.RawQuery = "xxxxx"
	}
	return u.Redacted()
}

// Reference writes docs/reference/configuration.md.
func Reference(w io.Writer) error {
	var b strings.Builder
	b.WriteString(`# Configuration

Parley starts without any configuration. Each setting below is a flag of ` + "`parley serve`" + `, a variable of the environment and a key of
` + "`parley.yaml`" + ` in the working directory (or of the file that ` + "`--config`" + ` names), in this order of precedence. An unknown flag or key is an
error; an empty variable counts as none. Durations are written as ` + "`30s`, `5m` or `1h30m`" + `; sizes as ` + "`1000000`, `1MB` (a million bytes) or `1MiB`" + `
(1,048,576). Lists are written with commas, in the file also as YAML lists. [` + "`parley.sample.yaml`" + `](../../parley.sample.yaml) has all of them.

Secrets are best kept in the environment or the file: other users of a machine can see the flags of a process.
` + "`parley doctor`" + ` shows what was read, without secrets.

This page is generated from ` + "`internal/config`" + `.
`)
	flags := settings(&Serve{})
	for _, g := range groups {
		fmt.Fprintf(&b, "\n## %s\n\n| flag, key | variable | default | |\n|---|---|---|---|\n", g.title)
		for _, f := range flags {
			if f.Group.Key != g.key {
				continue
			}
			byDefault := "-"
			if f.Default != "" {
				byDefault = "`" + f.Default + "`"
			}
			name := "--" + f.Name
			if !f.IsBool() {
				name += "=" + f.PlaceHolder
			}
			fmt.Fprintf(&b, "| `%s` | `%s` | %s | %s |\n", name, variable(f.Name), byDefault, f.Help)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// Sample writes parley.sample.yaml: all settings, with their defaults; those that have none stand behind a #.
func Sample(w io.Writer) error {
	var b strings.Builder
	b.WriteString(`# All settings of Parley, with their defaults. Copy what you want to change to parley.yaml, beside where
# "parley serve" is started, or name the file with --config. A flag or variable goes before what stands here.
# This file is generated from internal/config.
`)
	flags := settings(&Serve{})
	for _, g := range groups {
		fmt.Fprintf(&b, "\n\n# %s\n", g.title)
		for _, f := range flags {
			if f.Group.Key != g.key || f.Name == "config" {
				continue
			}
			fmt.Fprintf(&b, "\n# %s\n", strings.Join(wrap(f.Help, 110), "\n# "))
			switch {
			case f.Default == "":
				fmt.Fprintf(&b, "#%s: %s\n", f.Name, strings.TrimSuffix(f.PlaceHolder, ",..."))
			case f.IsSlice():
				fmt.Fprintf(&b, "%s: [%s]\n", f.Name, strings.ReplaceAll(f.Default, ",", ", "))
			default:
				fmt.Fprintf(&b, "%s: %s\n", f.Name, f.Default)
			}
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func wrap(text string, width int) (lines []string) {
	line := ""
	for word := range strings.FieldsSeq(text) {
		if line != "" && len(line)+1+len(word) > width {
			lines, line = append(lines, line), ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	return append(lines, line)
}
