package sysctl

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// kernel is a folder with two parameters, one of which cannot be set.
func kernel(t *testing.T) (root, memory string) {
	t.Helper()
	dir := t.TempDir()
	root = filepath.Join(dir, "sys")
	if err := os.MkdirAll(filepath.Join(root, "net/core"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, perm := range map[string]os.FileMode{"rmem_max": 0o644, "fixed": 0o444} {
		if err := os.WriteFile(filepath.Join(root, "net/core", name), []byte("100\n"), perm); err != nil {
			t.Fatal(err)
		}
	}
	return root, filepath.Join(dir, "before.json")
}

func value(t *testing.T, root, name string) string {
	t.Helper()
	raw, err := os.ReadFile(file(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(raw))
}

func TestSetAndGiveBack(t *testing.T) {
	root, memory := kernel(t)
	for i, step := range []struct {
		wanted map[string]string
		want   string
	}{
		{map[string]string{"net.core.rmem_max": "200"}, "200"},
		{map[string]string{"net.core.rmem_max": "300"}, "300"},
		{nil, "100"},
		{nil, "100"},
	} {
		if err := Set(root, memory, step.wanted); err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
		if got := value(t, root, "net.core.rmem_max"); got != step.want {
			t.Errorf("step %d: got %s, want %s", i, got, step.want)
		}
	}
	err := Set(root, memory, map[string]string{"net.core.none": "1", "net.core.rmem_max": "400"})
	if err == nil || !strings.Contains(err.Error(), "net.core.none") || value(t, root, "net.core.rmem_max") != "400" {
		t.Errorf("one that is absent beside another: got %v, %s", err, value(t, root, "net.core.rmem_max"))
	}
}

func TestCheck(t *testing.T) {
	root, _ := kernel(t)
	if err := Check(root, map[string]string{"net.core.rmem_max": "1"}); err != nil {
		t.Error(err)
	}
	err := Check(root, map[string]string{"net.core.none": "1", "net.core.fixed": "1", "net.core": "1"})
	for _, want := range []string{"net.core.none: this kernel has no such parameter", "net.core.fixed: cannot be set", "net.core: cannot be set"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}
