package cli

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"oscine.dev/oscine/internal/bounded"
	"oscine.dev/oscine/internal/object"
)

// exactArgs refuses a wrong number of arguments with the usage line.
func exactArgs(n int, names string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		switch {
		case len(args) == n:
			return nil
		case len(args) < n:
			return usageError{fmt.Errorf("needs %s: %s", names, c.UseLine())}
		}
		return usageError{fmt.Errorf("unexpected argument %q: %s", args[n], c.UseLine())}
	}
}

// readFileOrStdin reads a manifest, "-" meaning standard input.
func readFileOrStdin(env *Env, file string) ([]byte, error) {
	return readBounded(env, file, object.MaxBytes, "so not a manifest")
}

// readBounded reads a file, "-" meaning standard input, of at most limit
// bytes; otherwise ends the sentence about a larger one.
func readBounded(env *Env, file string, limit int64, otherwise string) ([]byte, error) {
	r := env.In
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, unreadable(file, err)
		}
		defer f.Close()
		r = f
	}
	raw, err := bounded.ReadAll(r, limit)
	if errors.Is(err, bounded.ErrTooLarge) {
		return nil, fmt.Errorf("%s: larger than %d bytes, %s", file, limit, otherwise)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	return raw, nil
}

// checkOutput says before long work why its result could not be written to the file
// that a flag names.
func checkOutput(flag, file string) error {
	if info, err := os.Stat(file); err == nil && info.IsDir() {
		return usageError{fmt.Errorf("--%s %s is a folder: name a file", flag, file)}
	}
	dir := filepath.Dir(file)
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return missing{fmt.Errorf("--%s %s: there is no folder %s: make it first, or name another file", flag, file, dir)}
	case err != nil || !info.IsDir():
		return usageError{fmt.Errorf("--%s %s: %s is no folder: name another file", flag, file, dir)}
	}
	f, err := os.CreateTemp(dir, ".oscine-")
	if err != nil {
		return fmt.Errorf("--%s %s: nothing can be written in %s: %w: name another file", flag, file, dir, err)
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

// missing is the error of what was named and does not exist.
type missing struct{ error }

// NotFound marks the error for its exit status.
func (missing) NotFound() {}

// unreached is the error of a server that did not answer.
type unreached struct{ error }

// Unavailable marks the error for its exit status.
func (unreached) Unavailable() {}

// noRoom is the error of what does not fit the node.
type noRoom struct{ error }

// ResourceExhausted marks the error for its exit status.
func (noRoom) ResourceExhausted() {}

// unreadable tells why a file that a person named could not be opened; other
// errors pass unchanged.
func unreadable(file string, err error) error {
	switch {
	case errors.Is(err, os.ErrNotExist):
		return missing{fmt.Errorf("%s: there is no such file", file)}
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("%s: this user may not read it (see ls -l)", file)
	case errors.Is(err, syscall.ENOTDIR):
		return fmt.Errorf("%s: a part of this path is a file and no folder", file)
	}
	return err
}

// objectFromFlags writes the object that a command's flags describe. It is
// parsed like any other, so its mistakes read the same, except for the lines: a
// person wrote none.
func objectFromFlags(kind object.Kind, name string, spec map[string]any) (string, error) {
	raw, err := yaml.Marshal(map[string]any{
		"apiVersion": object.APIVersion, "kind": kind,
		"metadata": map[string]any{"name": name}, "spec": spec,
	})
	if err != nil {
		return "", err
	}
	_, err = object.Kinds().Parse(bytes.NewReader(raw))
	return string(raw), withoutLines(err)
}

// withoutLines takes the line numbers from the mistakes in an object that no
// person wrote.
func withoutLines(err error) error {
	var mistakes object.Errors
	if errors.As(err, &mistakes) {
		for _, m := range mistakes {
			m.Line = 0
		}
	}
	return err
}

// afterDashes drops the "--" between a command's own arguments and a program's.
// Flags end at the first argument, so cobra leaves it in.
func afterDashes(args []string) []string {
	if len(args) > 0 && args[0] == "--" {
		return args[1:]
	}
	return args
}
