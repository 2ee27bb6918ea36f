package machinetest

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// TestSweep keeps the newest saved machines within the bounds, and those that a
// test uses, however old.
func TestSweep(t *testing.T) {
	all := t.TempDir()
	add := func(name string, age time.Duration) string {
		t.Helper()
		dir := filepath.Join(all, name)
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, useFile), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(dir, time.Time{}, time.Now().Add(-age)); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	var want []string
	for i := range savedMost + 2 {
		name := fmt.Sprintf("new-%02d", i)
		add(name, time.Duration(i)*time.Minute)
		if i < savedMost-1 { // room for one more
			want = append(want, name)
		}
	}
	add(unfinished+"1", 0)
	add("old", SavedFor+time.Minute)
	for _, name := range []string{"used-old", "used-many"} {
		dir := add(name, map[string]time.Duration{"used-old": 2 * SavedFor, "used-many": SavedFor / 2}[name])
		release := use(dir)
		if release == nil {
			t.Fatalf("%s cannot be used", name)
		}
		defer release()
		want = append(want, name)
	}
	sweep(all)
	entries, err := os.ReadDir(all)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("left are %q, want %q", got, want)
	}
	if release := use(filepath.Join(all, "old")); release != nil {
		t.Error("a machine that was removed can be used")
	}
}
