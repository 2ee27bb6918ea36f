package install

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"oscine.dev/oscine/internal/image"
	"oscine.dev/oscine/internal/image/layout"
	"oscine.dev/oscine/internal/release"
	"oscine.dev/oscine/internal/update/repository/repositorytest"
)

// An interrupted installation leaves a disk that nothing starts from, and that
// takes the next one.
func TestInterrupted(t *testing.T) {
	m, disk := machineWith(t, 1<<30)
	s, d := source(t, "1.2.3"), find(t, m, "vdb")
	if err := m.Install(t.Context(), d, s, Options{}); err != nil {
		t.Fatal(err)
	}
	for _, at := range []string{"write the root", "read the root back", "write the kernel image", "write the boot loader"} {
		ctx, cancel := context.WithCancel(t.Context())
		err := m.Install(ctx, d, s, Options{Report: func(p Progress) {
			if p.Step == at {
				cancel()
			}
		}})
		cancel()
		if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "install again") {
			t.Errorf("interrupted at %q: got %v", at, err)
		}
		if _, err := image.Open(disk); !errors.Is(err, image.ErrNotImage) {
			t.Errorf("interrupted at %q, the disk opens: %v", at, err)
		}
	}
	if err := m.Install(t.Context(), d, s, Options{}); err != nil {
		t.Fatal(err)
	}
	checkInstalled(t, disk, "1.2.3", "")
}

// ended is a context that ends once something is on the disk.
type ended struct {
	context.Context
	when func() bool
}

func (e ended) Err() error {
	if e.when() {
		return context.Canceled
	}
	return nil
}

// Once the last of what firmware needs is being written, ^C comes too late, and the
// kernel of this machine counts no more.
func TestLastStep(t *testing.T) {
	m, disk := machineWith(t, 1<<30)
	s, d := source(t, "1.2.3"), find(t, m, "vdb")
	f, err := os.OpenFile(disk, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	hasTable := func() bool {
		_, err := layout.ReadTable(f, 1<<30)
		return err == nil
	}
	if err := m.Install(ended{t.Context(), hasTable}, d, s, Options{}); err != nil {
		t.Error(err)
	}
	loaders := 0
	loaderIsBack := func() bool { // the old one is there at the begin
		if has := hasLoader(t, disk); has != (loaders%2 == 0) {
			loaders++
		}
		return loaders == 2
	}
	if err := m.Install(ended{t.Context(), loaderIsBack}, d, s, Options{KeepData: true}); err != nil {
		t.Error(err)
	}
	warned, calls := "", 0
	w, err := newWriter(t.Context(), f, s, Options{Report: func(p Progress) { warned = p.Step }})
	if err != nil {
		t.Fatal(err)
	}
	w.reread = func() error {
		if calls++; calls == 1 {
			return nil
		}
		return unix.EBUSY
	}
	if err := w.install(); err != nil || !strings.Contains(warned, "warning: ") || !strings.Contains(warned, "busy") {
		t.Errorf("a kernel that keeps the old table: %v, and said %q", err, warned)
	}
	checkInstalled(t, disk, "1.2.3", "")
}

func TestKeepData(t *testing.T) {
	m, disk := machineWith(t, 1<<30)
	d := find(t, m, "vdb")
	old, next := source(t, "1.2.3"), source(t, "1.3.0")
	before := touched(t, disk)
	if err := m.Install(t.Context(), d, next, Options{KeepData: true}); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "without --keep-data") {
		t.Errorf("an empty disk: got %v", err)
	}
	if touched(t, disk) != before {
		t.Error("an empty disk was changed")
	}
	if err := m.Install(t.Context(), d, old, Options{}); err != nil {
		t.Fatal(err)
	}
	mark := []byte("what people keep")
	at := leave(t, disk, mark)
	table := identifiers(t, disk)
	damage(t, disk, layout.MiB, 4<<20) // the ESP
	other := slotB(t, disk)
	damage(t, disk, other.Start, 2<<20)
	early := map[string]bool{} // steps at which firmware would start something
	o := Options{KeepData: true, Report: func(p Progress) {
		if p.Step != "take away what firmware would start" {
			early[p.Step] = early[p.Step] || hasLoader(t, disk)
		}
	}}
	if err := m.Install(t.Context(), d, next, o); err != nil {
		t.Fatal(err)
	}
	for step, is := range early {
		if is {
			t.Errorf("at the begin of %q there is a boot loader", step)
		}
	}
	if _, ok := early["write the boot loader"]; !ok {
		t.Errorf("the steps were %v", early)
	}
	checkInstalled(t, disk, "1.3.0", "")
	if got := readAt(t, disk, at, len(mark)); !bytes.Equal(got, mark) || !bytes.Equal(table, identifiers(t, disk)) {
		t.Errorf("the data holds %q", got)
	}
	if got := readAt(t, disk, other.Start, 1<<20); !bytes.Equal(got, make([]byte, layout.MiB)) {
		t.Error("the root in the other slot is whole: the node would bring its kernel image back")
	}
	if err := m.Install(t.Context(), d, next, Options{KeepData: true, Machine: []byte("x")}); !errors.Is(err, ErrRefused) {
		t.Errorf("with another Machine: got %v", err)
	}
	large := *next
	large.tree = make([]byte, 200<<20)
	if err := m.Install(t.Context(), d, &large, Options{KeepData: true}); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "its slots have") {
		t.Errorf("a root that is too large: got %v", err)
	}
}

func hasLoader(t *testing.T, disk string) bool {
	t.Helper()
	f, err := os.Open(disk)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fat, err := layout.OpenFAT(io.NewSectionReader(f, layout.MiB, layout.ESPSize), layout.ESPSize)
	if err != nil {
		return false // it is empty
	}
	_, err = fat.ReadFile(layout.LoaderPath(runtime.GOARCH), 8<<20)
	return err == nil
}

func slotB(t *testing.T, disk string) layout.Partition {
	t.Helper()
	f, err := os.Open(disk)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	parts, err := layout.ReadTable(f, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	return parts[release.PartitionRootB]
}

// leave writes a mark into the data partition, and tells where.
func leave(t *testing.T, disk string, mark []byte) int64 {
	t.Helper()
	f, err := os.OpenFile(disk, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	parts, err := layout.ReadTable(f, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	at := parts[release.PartitionData].Start + 8<<20
	if _, err := f.WriteAt(mark, at); err != nil {
		t.Fatal(err)
	}
	return at
}

func readAt(t *testing.T, disk string, at int64, n int) []byte {
	t.Helper()
	f, err := os.Open(disk)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, n)
	if _, err := f.ReadAt(b, at); err != nil {
		t.Fatal(err)
	}
	return b
}

func damage(t *testing.T, disk string, at, length int64) {
	t.Helper()
	f, err := os.OpenFile(disk, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(repositorytest.Noise(9, int(length)), at); err != nil {
		t.Fatal(err)
	}
}
