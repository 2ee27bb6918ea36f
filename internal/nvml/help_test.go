package nvml

import (
	"context"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ebitengine/purego"
)

// missing loads a library without initialising it and lists the functions that
// it lacks.
func (l *Library) missing(file string) (names []string, err error) {
	if l.handle, err = purego.Dlopen(file, purego.RTLD_NOW|purego.RTLD_LOCAL); err != nil {
		return nil, err
	}
	return l.resolve(), nil
}

// printed reads lines of a name and a number.
func printed(t *testing.T, program string) map[string]uintptr {
	t.Helper()
	text, err := exec.Command(program).Output()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]uintptr{}
	for line := range strings.Lines(string(text)) {
		name, number, _ := strings.Cut(strings.TrimSpace(line), " ")
		n, err := strconv.ParseUint(number, 10, 32)
		if err != nil {
			t.Fatal(err)
		}
		all[name] = uintptr(n)
	}
	return all
}

func contextWithDeadline(t *testing.T) (context.Context, context.CancelFunc) {
	return context.WithTimeout(t.Context(), 20*time.Second)
}
