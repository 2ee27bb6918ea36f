package cli

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"oscine.dev/oscine/internal/manifest"
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
	r := env.In
	if file != "-" {
		f, err := os.Open(file)
		if errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("%s: there is no such file", file)
		}
		if err != nil {
			return nil, err
		}
		defer f.Close()
		r = f
	}
	raw, err := io.ReadAll(io.LimitReader(r, manifest.MaxBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	if len(raw) > manifest.MaxBytes {
		return nil, fmt.Errorf("%s: larger than %d bytes, so not a manifest", file, manifest.MaxBytes)
	}
	return raw, nil
}

// afterDashes drops the "--" between a command's own arguments and a program's.
// Flags end at the first argument, so cobra leaves it in.
func afterDashes(args []string) []string {
	if len(args) > 0 && args[0] == "--" {
		return args[1:]
	}
	return args
}
