package disk

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"oscine.dev/oscine/internal/bench/guest"
	"oscine.dev/oscine/internal/bench/guest/guesttest"
	"oscine.dev/oscine/internal/debian"
)

// TestMain lets the test program be three things: the tests, the init of a guest
// that runs those named TestKernel…, and a process there that makes files.
func TestMain(m *testing.M) {
	switch {
	case len(os.Args) == 4 && os.Args[1] == "files":
		count, _ := strconv.Atoi(os.Args[3]) // of this test
		fmt.Println(fill(os.Args[2], count))
	case guest.Inside() && os.Getpid() == 1:
		guest.Main(m.Run)
	default:
		os.Exit(m.Run())
	}
}

// fill makes up to so many empty files and returns how many.
func fill(prefix string, count int) int {
	for i := range count {
		f, err := os.Create(fmt.Sprint(prefix, i))
		if err != nil {
			return i
		}
		f.Close()
	}
	return count
}

// TestInMachine boots the product's kernel with a small file system like the data
// partition.
func TestInMachine(t *testing.T) {
	guesttest.Need(t)
	tool, err := debian.FindTool(t.Context(), "mke2fs")
	if err != nil {
		t.Fatal(err)
	}
	image := filepath.Join(t.TempDir(), "data.img")
	mkfs := tool.Command(t.Context(), "-q", "-F", "-t", "ext4", "-b", "4096", "-m", "1", "-I", "256", "-N", "16384",
		"-O", "has_journal,extent,metadata_csum,64bit,quota,project", "-E", "quotatype=prjquota", image, "256M")
	if out, err := mkfs.CombinedOutput(); err != nil {
		t.Fatalf("mke2fs: %v: %s", err, out)
	}
	guesttest.RunKernelTests(t, guest.Options{CPUs: "2", Memory: 512, ExtraArgs: []string{
		"-drive", "if=none,id=disk,format=raw,file=" + image, "-device", "nvme,drive=disk,serial=oscine",
	}}, 10*time.Minute)
}

// somebody is who workloads run as: one whom quotas hold.
const somebody = 65534

// fillAs makes files as somebody.
func fillAs(t *testing.T, dir, prefix string, count int) int {
	t.Helper()
	child := exec.CommandContext(t.Context(), "/proc/self/exe", "files", filepath.Join(dir, prefix), strconv.Itoa(count))
	child.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: somebody, Gid: somebody}}
	out, err := child.CombinedOutput()
	if err != nil {
		t.Fatalf("make files as another: %v: %s", err, out)
	}
	made, err := strconv.Atoi(strings.TrimSpace(string(out)))
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// One who makes files without end takes neither the reserve of inodes nor what
// others need, however fast: the kernel holds it between two looks.
func TestKernelInodesAreKept(t *testing.T) {
	guesttest.NeedGuest(t)
	root := t.TempDir()
	if err := unix.Mount("/dev/nvme0n1", root, "ext4", 0, "prjquota"); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Unmount(root, 0); err != nil {
			t.Error(err)
		}
	}()
	d, err := Open[string](root)
	if err != nil {
		t.Fatal(err)
	}
	if !d.fs.limited {
		t.Fatal("the file system counts projects, but no limits are seen")
	}
	folder := func(name string, limit int64) string {
		dir := filepath.Join(root, name)
		if err := errors.Join(os.Mkdir(dir, 0o755), os.Chown(dir, somebody, somebody), d.Claim(name, "volume "+name, dir, limit)); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	for dir := root; dir != "/"; dir = filepath.Dir(dir) { // somebody may pass
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	small, greedy, calm := folder("small", 1<<20), folder("greedy", 0), folder("calm", 64<<20)
	var told []Event[string]
	look := func() {
		t.Helper()
		events, err := d.Look()
		if err != nil {
			t.Fatal(err)
		}
		told = append(told, events...)
	}
	if made := fillAs(t, small, "f", 5000); made != leastFiles-1 { // the folder is one
		t.Errorf("a volume of 1 MiB took %d files, want %d", made, leastFiles-1)
	}
	look()
	if held := d.Held("small"); len(told) != 1 || told[0].Owner != "small" || !strings.Contains(held[0].Problem, "1024 of 1024 files") {
		t.Errorf("got %+v and %+v, want the full volume named", told, held)
	}
	told = nil
	for round := 0; round < 100 && len(told) == 0; round++ {
		fillAs(t, greedy, fmt.Sprintf("r%d-", round), 1<<20)
		now, err := d.Space()
		if err != nil {
			t.Fatal(err)
		}
		if keep := reserve(now.Size); now.Free.Inodes < keep.Inodes {
			t.Fatalf("%d inodes are left, less than the reserve of %d", now.Free.Inodes, keep.Inodes)
		}
		look()
	}
	if len(told) != 1 || told[0].Owner != "greedy" || told[0].Stop {
		t.Fatalf("got %+v, want the greedy one held", told)
	}
	if made := fillAs(t, greedy, "more", 10); made != 0 {
		t.Errorf("the one that is held made %d files", made)
	}
	if made := fillAs(t, calm, "f", 10); made != 10 {
		t.Errorf("the one that holds little made only %d of 10 files", made)
	}
	if err := d.Room(); err == nil || !strings.Contains(err.Error(), "files free") {
		t.Errorf("got %v, want a refusal that names the files", err)
	}
	if made := fill(filepath.Join(root, "system"), 500); made != 500 {
		t.Errorf("the system made only %d of 500 files", made)
	}
	if err := os.RemoveAll(greedy); err != nil {
		t.Fatal(err)
	}
	look()
	if err := d.Room(); err != nil {
		t.Errorf("after the files were removed: %v", err)
	}
}
