package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"sync"

	"github.com/alecthomas/kong"
	"gopkg.in/yaml.v3"
)

const (
	defaultFile  = "parley.yaml"
	fileBytesMax = 1 << 20
)

// variable is the name of a setting in the environment.
func variable(setting string) string {
	return "PARLEY_" + strings.ToUpper(strings.ReplaceAll(setting, "-", "_"))
}

// settings are the flags of s, which is not nil, in the order of its fields; their targets are its fields.
func settings(s *Serve) []*kong.Flag {
	k, err := kong.New(s, kong.NoDefaultHelp())
	if err != nil {
		panic("config: the settings: " + err.Error())
	}
	return k.Model.Flags
}

// known are the names of all settings, also of those that the present command does not take: one file serves all commands.
var known = sync.OnceValue(func() map[string]bool {
	names := map[string]bool{}
	for _, f := range settings(&Serve{}) {
		names[f.Name] = true
	}
	return names
})

// resolver gives kong the values of flags that were not given: of the environment, else of the file. An empty variable
// counts as none, for that is what "X=" in a service file means. (kong's own order would put the file first.)
type resolver struct {
	read *kong.Context // the parse that the file was read for
	file map[string]string
}

// load reads the file; kong calls it for each part of the command line, before anything is resolved.
func (r *resolver) load(ctx *kong.Context) (err error) {
	if r.read == ctx {
		return nil
	}
	r.read = ctx
	r.file, err = loadFile(configFile(ctx))
	return err
}

// Validate has nothing to do: the file was checked when it was read.
func (r *resolver) Validate(*kong.Application) error { return nil }

// Resolve finds the value of a flag, or nil.
func (r *resolver) Resolve(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	if !known()[flag.Name] {
		return nil, nil
	}
	if value := os.Getenv(variable(flag.Name)); value != "" {
		return value, nil
	}
	if port := os.Getenv("PORT"); port != "" && flag.Name == "listen" {
		if !isPort(port) {
			return nil, fmt.Errorf("the variable PORT is %q, which is no port number", port)
		}
		return ":" + port, nil
	}
	if value, ok := r.file[flag.Name]; ok {
		return value, nil
	}
	return nil, nil
}

// configFile is the file to read, and whether it must exist.
func configFile(ctx *kong.Context) (path string, must bool) {
	for _, flag := range ctx.Flags() {
		if flag.Name != "config" {
			continue
		}
		if path, ok := ctx.FlagValue(flag).(string); ok && path != "" {
			return path, true
		}
	}
	if path := os.Getenv(variable("config")); path != "" {
		return path, true
	}
	return defaultFile, false
}

func loadFile(path string, must bool) (map[string]string, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) && !must {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	if info.Size() > fileBytesMax {
		return nil, fmt.Errorf("config: %s is larger than %d bytes", path, fileBytesMax)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	values, err := parseFile(text)
	if err != nil {
		return nil, fmt.Errorf("config: %s: %w", path, err)
	}
	return values, nil
}

// parseFile reads "setting: value" lines, where a value is a scalar or a list of them, into the form that flags have. Errors
// name keys and lines, and no values: one might be a secret.
func parseFile(text []byte) (map[string]string, error) {
	var doc yaml.Node
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	if err := decoder.Decode(&doc); errors.Is(err, io.EOF) {
		return nil, nil // Empty, or nothing but comments.
	} else if err != nil {
		return nil, err
	}
	if err := decoder.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, errors.New("there is more than one document")
	}
	root := doc.Content[0]
	if root.Kind != yaml.MappingNode {
		return nil, fmt.Errorf("line %d: settings are written as \"name: value\"", root.Line)
	}
	values := map[string]string{}
	for i := 0; i < len(root.Content); i += 2 {
		name, node := root.Content[i].Value, root.Content[i+1]
		at := fmt.Sprintf("line %d", root.Content[i].Line)
		if !known()[name] || name == "config" {
			return nil, fmt.Errorf("%s: unknown setting %.64q; the nearest known one is %q", at, name, nearest(name))
		}
		if _, twice := values[name]; twice {
			return nil, fmt.Errorf("%s: %q is set twice", at, name)
		}
		value, err := flagValue(node)
		if err != nil {
			return nil, fmt.Errorf("%s: %q %w", at, name, err)
		}
		values[name] = value
	}
	return values, nil
}

func flagValue(node *yaml.Node) (string, error) {
	switch {
	case node.Kind == yaml.ScalarNode && node.Tag != "!!null":
		return node.Value, nil
	case node.Kind == yaml.ScalarNode:
		return "", errors.New(`has no value; write "" for an empty one`)
	case node.Kind == yaml.SequenceNode:
		items := make([]string, len(node.Content))
		for i, item := range node.Content {
			if item.Kind != yaml.ScalarNode || item.Tag == "!!null" {
				return "", errors.New("is a list of something else than single values")
			}
			items[i] = item.Value
		}
		return kong.JoinEscaped(items, ','), nil
	}
	return "", errors.New("is neither a value nor a list of values")
}

// nearest is the known setting with the fewest edits to name, for which an underscore is as good as a dash.
func nearest(name string) string {
	name = strings.ReplaceAll(name, "_", "-")
	if len(name) > 64 {
		name = name[:64]
	}
	best, least := "", -1
	for _, f := range settings(&Serve{}) {
		if f.Name == "config" {
			continue
		}
		if d := edits(name, f.Name); least < 0 || d < least {
			best, least = f.Name, d
		}
	}
	return best
}

// edits is the Levenshtein distance of two short texts, in bytes.
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
