package disk

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// grow makes a folder hold so many MiB more.
func grow(t *testing.T, dir string, name string, mib int) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), make([]byte, mib<<20), 0o600); err != nil {
		t.Fatal(err)
	}
}

// On a file system that counts nothing, what passes its limit is stopped, and
// a short disk holds back those that grew.
func TestOffenderIsNamed(t *testing.T) {
	root := t.TempDir()
	d, err := Open[string](root)
	if err != nil {
		t.Fatal(err)
	}
	if d.fs.enforces() {
		t.Skip("the temporary folder's file system enforces limits; the rest is for those that don't")
	}
	for _, name := range []string{"old", "grows", "bound"} {
		dir := filepath.Join(root, name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if name == "old" {
			grow(t, dir, "data", 8)
		}
		limit := int64(0)
		if name == "bound" {
			limit = 1 << 20
		}
		if err := d.Claim(name, "volume "+name, dir, limit); err != nil {
			t.Fatal(err)
		}
	}
	size := Amount{Bytes: 10 << 30}
	enough, short := Space{size, Amount{Bytes: reserveOfTest * 3}}, Space{size, Amount{Bytes: reserveOfTest / 2}}
	if events := d.judge(enough); len(events) > 0 {
		t.Errorf("nothing happened, got %+v", events)
	}
	grow(t, filepath.Join(root, "bound"), "data", 2)
	grow(t, filepath.Join(root, "grows"), "data", 40)
	grow(t, filepath.Join(root, "old"), "little", 1)
	events := d.judge(short)
	if len(events) != 2 {
		t.Fatalf("got %+v, want one past its limit and one that grew", events)
	}
	for i, want := range []string{"bound", "grows"} {
		if e := events[i]; e.Owner != want || e.Reason != reasonFull || !e.Stop {
			t.Errorf("got %+v, want %s stopped", e, want)
		}
		if err := d.Admit(want); err == nil || !strings.Contains(err.Error(), "full") {
			t.Errorf("%s may start again: %v", want, err)
		}
		if st := d.Held(want); len(st) != 1 || st[0].Problem == "" {
			t.Errorf("status of %s: %+v", want, st)
		}
	}
	if err := d.Admit("old"); err != nil {
		t.Errorf("what did not grow may not start: %v", err)
	}
	if err := d.Room(); err == nil {
		t.Error("there is room for an image on a full disk")
	}
	if events := d.judge(short); len(events) != 0 {
		t.Errorf("told again: %+v", events)
	}
	for _, name := range []string{"bound", "grows"} {
		if err := os.Remove(filepath.Join(root, name, "data")); err != nil {
			t.Fatal(err)
		}
	}
	d.judge(enough)
	for _, name := range []string{"old", "grows", "bound"} {
		if err := d.Admit(name); err != nil {
			t.Errorf("%s may not start though there is room: %v", name, err)
		}
	}
	d.Forget("old")
	if st := d.Held("old"); len(st) != 0 {
		t.Errorf("a forgotten object holds %+v", st)
	}
}

const reserveOfTest = 512 << 20 // of 10 GiB, a twentieth

func TestReserve(t *testing.T) {
	for _, c := range []struct{ size, want Amount }{
		{Amount{1 << 30, 0}, Amount{64 << 20, 0}},
		{Amount{10 << 30, 655360}, Amount{reserveOfTest, 32768}},
		{Amount{1 << 40, 1 << 26}, Amount{2 << 30, 64 << 10}},
		{Amount{64 << 20, 4096}, Amount{64 << 20, 1024}},
	} {
		if got := reserve(c.size); got != c.want {
			t.Errorf("reserve of %+v: got %+v, want %+v", c.size, got, c.want)
		}
	}
}
