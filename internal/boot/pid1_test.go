package boot

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	"oscine.dev/oscine/internal/release"
)

func TestUnmountOrder(t *testing.T) {
	file := filepath.Join(t.TempDir(), "mountinfo")
	info := `21 1 254:0 / / ro - erofs /dev/dm-0 ro
22 21 0:5 / /dev rw - devtmpfs devtmpfs rw
23 21 0:6 / /proc rw - proc proc rw
24 21 254:4 / /var rw - ext4 /dev/vda4 rw
25 21 0:20 / /run rw - tmpfs tmpfs rw
26 24 0:21 / /var/lib/a\040b rw - overlay overlay rw
27 22 0:22 / /dev/shm rw - tmpfs tmpfs rw
bad line
28 21 0:23 / /etc rw - overlay overlay rw
`
	if err := os.WriteFile(file, []byte(info), 0o600); err != nil {
		t.Fatal(err)
	}
	mounts, err := readMounts(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"/etc", "/var/lib/a b", "/var"}, unmountOrder(mounts)); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
}

func TestGuard(t *testing.T) {
	err := guard("the test", func() error { panic("oh") })
	if err == nil || !strings.Contains(err.Error(), "the test panicked: oh") {
		t.Errorf("got %v", err)
	}
}

func TestHandover(t *testing.T) {
	key, value, _ := strings.Cut(handOver(release.Facts{
		Slot: release.PartitionRootB, Disk: "sda", Data: "sda4", Image: "EFI/Linux/o+1-2.efi", Stage1: 1234 * time.Millisecond,
	})[0], "=")
	t.Setenv(key, value)
	want := release.Facts{Slot: "root-b", Disk: "sda", Data: "sda4", Image: "EFI/Linux/o+1-2.efi", Trial: true, Stage1: 1234 * time.Millisecond}
	for good, want := range map[bool]release.Facts{false: want, true: {Slot: want.Slot, Disk: want.Disk, Data: want.Data, Image: want.Image, Good: true, Stage1: want.Stage1}} {
		got := release.ParseFacts(string(factsNow(receive(), good)))
		if got.Kernel <= 0 {
			t.Errorf("good %t: no time since the start of the kernel", good)
		}
		got.Kernel = 0
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("good %t (-want +got):\n%s", good, diff)
		}
	}
}

// TestProgram runs a real process through the supervisor's own start and reap.
func TestProgram(t *testing.T) {
	dir := t.TempDir()
	p := &program{
		log: &Log{}, path: "/bin/echo", pidFile: filepath.Join(dir, "pid"),
		output: newOutput(&Log{}, filepath.Join(dir, "console"), filepath.Join(dir, "log")),
	}
	if _, err := os.Stat(p.path); err != nil {
		t.Skipf("needs %s: %v", p.path, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "console"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	pid, err := p.start()
	if err != nil {
		t.Fatal(err)
	}
	var status unix.WaitStatus
	if _, err := unix.Wait4(pid, &status, 0, nil); err != nil || describe(status) != "exit status 0" {
		t.Errorf("got %s, %v", describe(status), err)
	}
	if p.running() != 0 {
		t.Error("an ended process counts as running")
	}
	for _, name := range []string{"log", "console"} {
		deadline := time.Now().Add(10 * time.Second)
		for {
			raw, err := os.ReadFile(filepath.Join(dir, name))
			if string(raw) == "\n" {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: got %q, %v", name, raw, err)
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	p.path = "/nonexistent"
	if _, err := p.start(); err == nil {
		t.Error("a missing program was started")
	}
}

func TestOutputIsBounded(t *testing.T) {
	dir := t.TempDir()
	o := &output{lines: make(chan []byte), file: filepath.Join(dir, "log")}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		line := []byte(strings.Repeat("x", 20<<10) + "\n")
		for range 200 { // 4 MB, and nobody reads the console
			if _, err := w.Write(line); err != nil {
				break
			}
		}
		_ = w.Close()
	}()
	if err := o.copyLines(r); err != nil {
		t.Fatal(err)
	}
	var total int64
	for _, name := range []string{"log", "log.1"} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		total += info.Size()
	}
	if total == 0 || total > 2*maxOutputFile+2*maxOutputLine {
		t.Errorf("4 MB of output left %d bytes on disk", total)
	}
}
