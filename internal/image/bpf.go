package image

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// The BPF programs that the daemon embeds, and what each of them includes.
const (
	bpfSources = "internal/*/*/bpf/*.bpf.c"
	bpfHeader  = "internal/bpf/kernel.h"
)

// buildBPF compiles the BPF programs whose sources have changed since make
// compiled them. It returns what the compiler said: where it cannot be had, the
// image is built without them, and why is in there.
func buildBPF(ctx context.Context, source string) (said string, err error) {
	files, err := filepath.Glob(filepath.Join(source, bpfSources))
	if err != nil {
		return "", err
	}
	args := []string{"run", "./internal/bpf/compile"}
	for _, file := range files {
		built := modified(strings.TrimSuffix(file, ".c") + ".o")
		if built.Before(modified(file)) || built.Before(modified(filepath.Join(source, bpfHeader))) {
			args = append(args, file)
		}
	}
	if len(args) == 2 {
		return "", nil
	}
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = source
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("compile the BPF programs: %w\n%s", err, tail(out, 2000))
	}
	return strings.TrimSpace(string(out)), nil
}

// modified is when a file was last changed, the zero time where there is none.
func modified(file string) time.Time {
	info, err := os.Stat(file)
	if err != nil {
		return time.Time{}
	}
	return info.ModTime()
}
