package slot

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"oscine.dev/oscine/internal/linux"
	"oscine.dev/oscine/internal/uki"
	"oscine.dev/oscine/internal/uki/ukitest"
	"oscine.dev/oscine/internal/update"
)

const (
	firmwareLoader = "EFI/BOOT/BOOTX64.EFI"
	trialLoader    = "EFI/systemd/systemd-bootx64.efi"
)

// makeLoader is a signed boot loader that says it has a version.
func makeLoader(t *testing.T, key *uki.Key, version string) []byte {
	t.Helper()
	stub, err := uki.Assemble(ukitest.Stub(), []uki.Section{{Name: ".sdmagic", Data: []byte("#### LoaderInfo: systemd-boot " + version + " ####")}})
	if err != nil {
		t.Fatal(err)
	}
	loader, err := key.Sign(stub)
	if err != nil {
		t.Fatal(err)
	}
	return loader
}

// fakeFirmware starts boot loaders of a disk in memory.
type fakeFirmware struct {
	disk   *memoryDisk
	next   string // that BootNext names
	tries  int
	loader string // that the machine came through
	broken []byte // a boot loader that does not start
	none   bool   // it keeps no variables
}

func (f *fakeFirmware) Loader() (string, error)   { return f.loader, nil }
func (f *fakeFirmware) Tries() (int, bool, error) { return f.tries, f.next != "", nil }

func (f *fakeFirmware) TryOnce(name string) error {
	if f.none {
		return errors.ErrUnsupported
	}
	return f.disk.operation(func(half bool) {
		if !half {
			f.next, f.tries = name, f.tries+1
		}
	})
}

func (f *fakeFirmware) Forget() error {
	return f.disk.operation(func(half bool) {
		if f.tries = 0; !half {
			f.next = ""
		}
	})
}

// start is a start of the machine, which fails where no boot loader is whole.
func (f *fakeFirmware) start(t *testing.T) {
	t.Helper()
	next := f.next
	f.next = ""
	for _, name := range []string{next, firmwareLoader} {
		program, ok := f.disk.files[name]
		if ok && signed(program) && !bytes.Equal(program, f.broken) {
			f.loader = name
			return
		}
	}
	t.Fatal("the machine does not start: no boot loader is whole")
}

// loaderWorld is a machine whose root has another boot loader than its ESP.
func loaderWorld(t *testing.T, now, want []byte) (*memoryDisk, *Slots, *fakeFirmware, map[string][]byte) {
	t.Helper()
	d, s := installed(&version{manifest: &update.Manifest{Version: "2.0"}})
	d.files[firmwareLoader] = now
	if err := (memoryESP{d}).Flush(); err != nil {
		t.Fatal(err)
	}
	d.operations = 0
	fw := &fakeFirmware{disk: d}
	fw.start(t)
	return d, s, fw, map[string][]byte{firmwareLoader: want, "loader/loader.conf": []byte("timeout 0\n")}
}

func mustStep(t *testing.T, s *Slots, fw Firmware, files map[string][]byte, want LoaderStep) {
	t.Helper()
	if got, err := s.ReplaceLoader(fw, files); err != nil || got != want {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
}

func TestReplaceLoader(t *testing.T) {
	key := newKey(t)
	old, next := makeLoader(t, key, "257.13-1~deb13u1"), makeLoader(t, key, "259.2-1")
	d, s, fw, files := loaderWorld(t, old, next)
	mustStep(t, s, fw, files, LoaderStaged)
	mustStep(t, s, fw, files, LoaderStaged) // until the machine starts
	if !bytes.Equal(d.files[firmwareLoader], old) {
		t.Error("it was replaced before it was tried")
	}
	fw.start(t)
	mustStep(t, s, fw, files, LoaderReplaced)
	mustStep(t, s, fw, files, LoaderSame)
	if _, there := d.files[trialLoader]; there || fw.next != "" || !bytes.Equal(d.files[firmwareLoader], next) {
		t.Errorf("replaced, and a trial is left: %t, %q", there, fw.next)
	}
	fw.start(t)
	files[firmwareLoader] = old // of an older version, to which the node went back
	mustStep(t, s, fw, files, LoaderSame)
	if !bytes.Equal(d.files[firmwareLoader], next) {
		t.Error("an older boot loader took its place")
	}
}

// A boot loader that does not start stays on trial, and another one is tried.
func TestLoaderRefused(t *testing.T) {
	key := newKey(t)
	old, next, third := makeLoader(t, key, "257"), makeLoader(t, key, "258"), makeLoader(t, key, "259")
	d, s, fw, files := loaderWorld(t, old, next)
	fw.broken = next
	for range loaderTries {
		mustStep(t, s, fw, files, LoaderStaged)
		fw.start(t)
	}
	for range 2 {
		mustStep(t, s, fw, files, LoaderRefused)
		fw.start(t)
	}
	files[firmwareLoader] = third
	mustStep(t, s, fw, files, LoaderStaged)
	fw.start(t)
	mustStep(t, s, fw, files, LoaderReplaced)
	if !bytes.Equal(d.files[firmwareLoader], third) {
		t.Error("it was not replaced")
	}
	files[firmwareLoader] = makeLoader(t, newKey(t), "260")
	if _, err := s.ReplaceLoader(fw, files); err == nil || !strings.Contains(err.Error(), "is not the key of the one in use") {
		t.Errorf("another key: got %v", err)
	}
	files[firmwareLoader] = makeLoader(t, key, "260")
	fw.none = true
	if _, err := s.ReplaceLoader(fw, files); !errors.Is(err, errors.ErrUnsupported) || d.files[trialLoader] != nil {
		t.Errorf("firmware without variables: got %v", err)
	}
	fw.none = false
	d.files["foreign"] = make([]byte, testESPSize)
	if _, err := s.ReplaceLoader(fw, files); !errors.Is(err, ErrNoRoom) || fw.next != "" {
		t.Errorf("no room: got %v, next %q", err, fw.next)
	}
}

// A boot that came through a boot loader on trial says nothing of the one that took
// its path since.
func TestLoaderStagedAfterTrial(t *testing.T) {
	key := newKey(t)
	old, next, third := makeLoader(t, key, "257"), makeLoader(t, key, "258"), makeLoader(t, key, "259")
	d, s, fw, files := loaderWorld(t, old, next)
	mustStep(t, s, fw, files, LoaderStaged)
	fw.start(t) // into a version with yet another boot loader
	files[firmwareLoader], fw.broken = third, third
	mustStep(t, s, fw, files, LoaderStaged)
	mustStep(t, s, fw, files, LoaderStaged)
	if err := fw.Forget(); err != nil { // as when the daemon ends before the firmware is told
		t.Fatal(err)
	}
	mustStep(t, s, fw, files, LoaderStaged)
	if !bytes.Equal(d.files[firmwareLoader], old) {
		t.Error("one that was never started took the place of the old one")
	}
	fw.start(t)
	mustStep(t, s, fw, files, LoaderStaged)
	fw.broken = nil
	fw.start(t)
	mustStep(t, s, fw, files, LoaderReplaced)
	if !bytes.Equal(d.files[firmwareLoader], third) {
		t.Error("it was not replaced")
	}
}

// Power fails at each operation, and once more at each later one: the machine starts
// each time, and has the new boot loader in the end.
func TestReplaceLoaderPowerCut(t *testing.T) {
	key := newKey(t)
	old, next := makeLoader(t, key, "257"), makeLoader(t, key, "258")
	cuts := 0
	for seed := range uint64(4) {
		for at := 1; ; at++ {
			d, s, fw, files := loaderWorld(t, old, next)
			r := rand.New(rand.NewPCG(uint64(at), seed))
			d.failAt, d.cut = at, true
			through := true
			for range 2 { // staged, then replaced
				for {
					_, err := s.ReplaceLoader(fw, files)
					if err == nil {
						break
					}
					if !errors.Is(err, errCut) {
						t.Fatalf("power failed at %d: %v", at, err)
					}
					through = false
					cuts++
					d.restart(r)
					fw.start(t)
				}
				fw.start(t)
			}
			for range 4 { // what a power failure undid comes again
				if step, err := s.ReplaceLoader(fw, files); err != nil {
					t.Fatalf("power failed at %d: %v", at, err)
				} else if step == LoaderRefused {
					t.Fatalf("power failed at %d, seed %d: it was refused; files %d, next %q", at, seed, len(d.files), fw.next)
				}
				fw.start(t)
			}
			if !bytes.Equal(d.files[firmwareLoader], next) || d.files[trialLoader] != nil || fw.next != "" {
				t.Fatalf("power failed at %d: it was not replaced", at)
			}
			if through {
				break
			}
		}
	}
	if cuts < 20 {
		t.Errorf("power failed %d times", cuts)
	}
	t.Logf("%d power cuts", cuts)
}

// TestFirmware keeps what it writes as UEFI has it.
func TestFirmware(t *testing.T) {
	dir := t.TempDir()
	e := &efi{dir, func() (linux.Partition, error) {
		return linux.Partition{Device: "vda1", UUID: "01234567-89ab-cdef-0123-456789abcdef", Number: 1, Start: 1 << 20, Size: 64 << 20}, nil
	}}
	if err := e.TryOnce(trialLoader); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("no variables: got %v", err)
	}
	variable := func(name, vendor, content string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name+"-"+vendor), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	variable("Boot0000", globalVendor, "\x07\x00\x00\x00\x01\x00\x00\x00\x04\x00D\x00\x00\x00\x7f\xff\x04\x00")
	variable("BootOrder", globalVendor, "\x07\x00\x00\x00\x00\x00")
	variable("LoaderImageIdentifier", linux.LoaderVendor, "\x06\x00\x00\x00"+string(utf16z(`\EFI\systemd\systemd-bootx64.efi`)))
	if got, err := e.Loader(); err != nil || got != trialLoader {
		t.Errorf("got %q, %v", got, err)
	}
	if n, waits, err := e.Tries(); err != nil || n != 0 || waits {
		t.Errorf("nothing is tried: got %d, %v, %v", n, waits, err)
	}
	for i := range 2 {
		if err := e.TryOnce(trialLoader); err != nil {
			t.Fatal(err)
		}
		if n, waits, err := e.Tries(); err != nil || n != i+1 || !waits {
			t.Errorf("got %d, %v, %v", n, waits, err)
		}
	}
	next, err := os.ReadFile(e.file(bootNext))
	if err != nil || string(next) != "\x07\x00\x00\x00\x01\x00" {
		t.Errorf("BootNext is % x, %v", next, err)
	}
	entry, err := os.ReadFile(e.file("Boot0001"))
	path := utf16z(`\EFI\systemd\systemd-bootx64.efi`)
	want := "\x07\x00\x00\x00" + "\x01\x00\x00\x00" + string([]byte{byte(42 + 4 + len(path) + 4), 0}) + string(utf16z(trialName+"2")) +
		"\x04\x01\x2a\x00" + "\x01\x00\x00\x00" + "\x00\x08\x00\x00\x00\x00\x00\x00" + "\x00\x00\x02\x00\x00\x00\x00\x00" +
		"\x67\x45\x23\x01\xab\x89\xef\xcd\x01\x23\x45\x67\x89\xab\xcd\xef" + "\x02\x02" +
		"\x04\x04" + string([]byte{byte(4 + len(path)), 0}) + string(path) + "\x7f\xff\x04\x00"
	if err != nil || string(entry) != want {
		t.Errorf("the boot entry is\n% x, want\n% x, %v", entry, want, err)
	}
	if err := e.Forget(); err != nil {
		t.Error(err)
	}
	left, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(left) != 3 {
		t.Errorf("left are %v, %v", left, err)
	}
	variable(bootNext, globalVendor, "\x07\x00\x00\x00\x00\x00") // another's
	if n, waits, err := e.Tries(); err != nil || n != 0 || waits {
		t.Errorf("another's BootNext: got %d, %v, %v", n, waits, err)
	}
	if err := e.Forget(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(e.file(bootNext)); err != nil {
		t.Errorf("another's BootNext is gone: %v", err)
	}
	for n := range maxEntries {
		variable(fmt.Sprintf("Boot%04X", n), globalVendor, "")
	}
	if err := e.TryOnce(trialLoader); err == nil {
		t.Error("there is no free number, and it was taken")
	}
}
