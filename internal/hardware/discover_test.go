package hardware

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// cpuTime is the user and system time of this process, or of its finished
// children.
func cpuTime(tb testing.TB, who int) time.Duration {
	tb.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(who, &u); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkDiscover measures a discovery in CPU time, of this machine and of
// the largest recorded ones unpacked on disk, and reports the ratio to lstopo
// over the same trees where that is installed.
func BenchmarkDiscover(b *testing.B) {
	b.Run("this", func(b *testing.B) { benchmarkDiscover(b, "/") })
	for _, name := range []string{"nri-server-2s-snc-pmem", "128arm-2pa2n8cluster4co", "32em64t-2n8c+dax+nvme+mic+dimms"} {
		archive := filepath.Join(sharedData, "topology-public", name+".tar.bz2")
		b.Run(name, func(b *testing.B) {
			if _, err := os.Stat(archive); err != nil {
				b.Skip("the oracle data topology-public is not beside the checkout")
			}
			benchmarkDiscover(b, unpackMachine(b, archive))
		})
	}
}

func benchmarkDiscover(b *testing.B, root string) {
	b.ReportAllocs()
	start := cpuTime(b, syscall.RUSAGE_SELF)
	for b.Loop() {
		if _, err := Discover(root); err != nil {
			b.Fatal(err)
		}
	}
	ours := (cpuTime(b, syscall.RUSAGE_SELF) - start) / time.Duration(b.N)
	b.ReportMetric(float64(ours.Microseconds())/1000, "cpu-ms/op")
	lstopo, err := exec.LookPath("lstopo-no-graphics")
	if err != nil {
		b.Log("lstopo-no-graphics is not installed: no ratio")
		return
	}
	const runs = 5
	before := cpuTime(b, syscall.RUSAGE_CHILDREN)
	for range runs {
		c := exec.Command(lstopo, "--of", "xml", "--whole-io", "-")
		c.Env = append(os.Environ(), "HWLOC_COMPONENTS=linux,stop", "HWLOC_FSROOT="+root)
		if err := c.Run(); err != nil {
			b.Fatal(err)
		}
	}
	theirs := (cpuTime(b, syscall.RUSAGE_CHILDREN) - before) / runs
	b.ReportMetric(float64(theirs.Microseconds())/1000, "lstopo-cpu-ms/op")
	b.ReportMetric(float64(ours)/float64(theirs), "ratio")
}

// unpackMachine writes a recorded machine to disk and returns its root.
func unpackMachine(tb testing.TB, archive string) string {
	tb.Helper()
	t, _, err := openArchive(archive)
	if err != nil {
		tb.Fatal(err)
	}
	m := t.(*subtree)
	dir := tb.TempDir()
	at := func(name string) string { return filepath.Join(dir, strings.TrimPrefix(name, m.root)) }
	for name := range m.dirs {
		if strings.HasPrefix(name, m.root) {
			if err := os.MkdirAll(at(name), 0o755); err != nil {
				tb.Fatal(err)
			}
		}
	}
	for name, data := range m.files {
		if err := os.WriteFile(at(name), data, 0o644); err != nil {
			tb.Fatal(err)
		}
	}
	for name, target := range m.links {
		if err := os.Symlink(target, at(name)); err != nil {
			tb.Fatal(err)
		}
	}
	return dir
}

// TestThisMachine maps the machine that the test runs on.
func TestThisMachine(t *testing.T) {
	m, err := Discover("/")
	if err != nil {
		t.Fatal(err)
	}
	if m.Online.Len() < runtime.NumCPU() {
		t.Errorf("%d CPUs online, the Go runtime sees %d", m.Online.Len(), runtime.NumCPU())
	}
	if m.Memory() == 0 || len(m.Cores) == 0 || len(m.Packages) == 0 {
		t.Errorf("memory %s, %d cores, %d packages", m.Memory(), len(m.Cores), len(m.Packages))
	}
	data, err := Encode(m)
	if err != nil {
		t.Fatal(err)
	}
	back, err := Decode(data)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Encode(back)
	if err != nil {
		t.Fatal(err)
	}
	if string(again) != string(data) {
		t.Error("the JSON document does not survive decoding")
	}
}

func TestDiscoverRefuses(t *testing.T) {
	if _, err := Discover(filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing root: got %v", err)
	}
	text := filepath.Join(t.TempDir(), "notes.txt")
	if err := os.WriteFile(text, []byte("no machine"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Discover(text); err == nil || !strings.Contains(err.Error(), "neither a directory nor an archive") {
		t.Errorf("text file: got %v", err)
	}
	m, err := Discover(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Gaps) == 0 {
		t.Error("an empty directory has no gaps")
	}
}
