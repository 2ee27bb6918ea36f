package isolate

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"oscine.dev/oscine/internal/hardware"
	"oscine.dev/oscine/internal/object"
)

// tree makes a root with the given files.
func tree(t *testing.T, files ...string) string {
	t.Helper()
	root := t.TempDir()
	for _, f := range append(files, "proc/self/x") {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(root, f)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, f), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestHostsWithoutCgroupTwoSayWhatFallsAway(t *testing.T) {
	for _, c := range []struct {
		name, file, want string
	}{
		{"hybrid", "sys/fs/cgroup/unified/cgroup.controllers", "hybrid"},
		{"version 1", "sys/fs/cgroup/cpu/tasks", "version 1"},
		{"nothing", "sys/x", "no cgroup hierarchy"},
	} {
		i, err := Open(Options{Root: tree(t, c.file)})
		if err != nil {
			t.Fatal(err)
		}
		gaps := i.Gaps()
		if len(gaps) != 6 || !strings.Contains(gaps[0].Reason, c.want) {
			t.Errorf("%s: got %v", c.name, gaps)
		}
		if err := i.Prepare(Spec{ID: "w", Class: Interactive}); err != nil {
			t.Errorf("%s: it does not go on: %v", c.name, err)
		}
		if got := i.Cgroup("w"); got != "" {
			t.Errorf("%s: got cgroup %q", c.name, got)
		}
		if st, err := i.Status("w"); err != nil || len(st.Promises) == 0 || st.Promises[0].Held {
			t.Errorf("%s: got %+v %v, want a promise that is not held", c.name, st, err)
		}
	}
}

func TestAnotherManagerIsReported(t *testing.T) {
	h, err := inspect(tree(t, "sys/fs/cgroup/cgroup.controllers", "sys/fs/cgroup/init.scope/cgroup.procs", "sys/fs/cgroup/docker/cgroup.procs"))
	if err != nil || len(h.gaps) != 2 || !strings.Contains(h.gaps[0].Reason, "systemd") || !strings.Contains(h.gaps[1].Reason, "Docker") {
		t.Errorf("got %v %v", h.gaps, err)
	}
}

func TestInterruptsFindTheirNewHome(t *testing.T) {
	list := func(text string) hardware.Set {
		s, err := hardware.ParseList(text)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	online := list("0-7")
	for _, c := range []struct {
		home, defaults string
		reserved, want []string // one after the other
	}{
		{"0-7", "0-7", []string{"2-3", ""}, []string{"0-1,4-7", "0-7"}},
		{"0-7", "0-7", []string{"2-3", "2-5", "4"}, []string{"0-1,4-7", "0-1,6-7", "0-3,5-7"}},
		{"0-1,4-7", "0-7", []string{"2-3", ""}, []string{"0-1,4-7", "0-1,4-7"}}, // its own choice, and by chance the same
		{"0-3", "0-7", []string{"4-7", ""}, []string{"0-3", "0-3"}},
		{"2", "0-7", []string{"2-3", ""}, []string{"0-1,4-7", "2"}}, // its only CPU is taken, and comes back
		{"4-5", "0-7", []string{"5", ""}, []string{"4", "4-5"}},
		{"0-1,4-7", "0-1,4-7", []string{"2", "2-3", ""}, []string{"0-1,3-7", "0-1,4-7", "0-7"}}, // moved by an earlier process
		{"5", "0-1,4-7", []string{"2-3", ""}, []string{"5", "5"}},
	} {
		var h homes
		h.begin(list(c.defaults), online)
		now := list(c.home)
		for n, reserved := range c.reserved {
			if now = h.next("x", now, list(reserved), online); now.String() != c.want[n] {
				t.Errorf("%s, reserved %q: got %s, want %s", c.home, c.reserved[:n+1], now, c.want[n])
			}
		}
	}
	var k homes
	k.begin(online, online)
	k.nextOfKernel("x", online, list("2-3"), online)
	if got := k.nextOfKernel("x", list("0-1"), list("2"), online); got.String() != "0-1,3-7" {
		t.Errorf("the kernel took CPUs away, we gave it %s", got)
	}
	var h homes
	h.begin(online, online)
	h.next("x", online, list("2-3"), online)
	if got := h.next("x", list("6"), list("2-4"), online); got.String() != "6" {
		t.Errorf("others moved it to CPU 6, we to %s", got)
	}
}

func TestMaskText(t *testing.T) {
	for ids, want := range map[int]string{0: "1", 3: "8", 31: "80000000", 32: "1,0", 70: "40,0,0"} {
		if got := mask2text(hardware.NewSet(ids)); got != want {
			t.Errorf("CPU %d: got %s, want %s", ids, got, want)
		}
	}
}

func TestPressureIsRead(t *testing.T) {
	got := parsePressure("some avg10=1.50 avg60=0.10 avg300=0.00 total=2500\nfull avg10=0.25 avg60=0 avg300=0 total=1000\n")
	want := object.Pressure{Some10: 1.5, Full10: .25, Some: object.Duration(2500 * time.Microsecond), Full: object.Duration(time.Millisecond)}
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func FuzzPressure(f *testing.F) {
	f.Add("some avg10=1.50 avg60=0.10 avg300=0.00 total=2500\n")
	f.Add("some total=1e400\nfull total=-1")
	f.Fuzz(func(t *testing.T, text string) {
		if s := parsePressure(text); s.Some < 0 || s.Full < 0 || s.Some10 < 0 {
			t.Errorf("%q: got %+v", text, s)
		}
		_ = numbers(text)
		_ = chosen(text)
	})
}
