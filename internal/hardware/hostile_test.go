package hardware

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"oscine.dev/oscine/internal/hardware/hardwaretest"
)

// useEverything walks every way out of a map: none may panic, whatever is in
// it.
func useEverything(t testing.TB, m *Machine) {
	t.Helper()
	data, err := Encode(m)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Decode(data); err != nil {
		t.Fatal(err)
	}
	CDI(m)
	for i := range m.Accelerators {
		for j := range m.Accelerators {
			if _, err := m.Between(m.Accelerators[i].ID, m.Accelerators[j].ID); err != nil {
				t.Errorf("Between(%s, %s): %v", m.Accelerators[i].ID, m.Accelerators[j].ID, err)
			}
		}
		if _, err := m.Explain(m.Accelerators[i].ID); err != nil {
			t.Error(err)
		}
	}
	for _, c := range m.CPUs {
		if c.Core < 0 || c.Core >= len(m.Cores) || c.Kind >= len(m.Kinds) {
			t.Errorf("cpu %d has core %d of %d, kind %d of %d", c.ID, c.Core, len(m.Cores), c.Kind, len(m.Kinds))
		}
	}
	if len(m.Gaps) > maxGaps+1 {
		t.Errorf("%d gaps", len(m.Gaps))
	}
}

// TestHostileTrees reads machines with spoiled files: the map is partial then,
// and never a panic.
func TestHostileTrees(t *testing.T) {
	for name, from := range hardwaretest.Machines() {
		if strings.HasPrefix(name, "server") || strings.HasPrefix(name, "gb200") {
			continue // the same readers on more files
		}
		t.Run(name, func(t *testing.T) {
			for how, tree := range hardwaretest.Spoiled(from) {
				m := described(t, tree)
				useEverything(t, m)
				if how == "words in all files" && len(m.Gaps) == 0 {
					t.Errorf("%s: no gap is named", how)
				}
			}
		})
	}
}

// TestHostileLinks builds circles and ways out of the tree.
func TestHostileLinks(t *testing.T) {
	dir := t.TempDir()
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("0-1"), 0o644); err != nil {
		t.Fatal(err)
	}
	tree := hardwaretest.CoralDevBoard()
	tree.Remove("/sys/devices/system/cpu/online")
	if err := tree.Write(dir); err != nil {
		t.Fatal(err)
	}
	link := func(target, name string) {
		t.Helper()
		at := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(target, at); err != nil {
			t.Fatal(err)
		}
	}
	link(secret, "sys/devices/system/cpu/online") // outside the tree
	link("../cpu", "sys/devices/system/cpu/cpu99")
	link("loop", "sys/bus/pci/devices/loop")
	link("0000:09:00.0", "sys/bus/pci/devices/0000:09:00.0")
	link("../../../../../../../..", "sys/class/net/eth0")
	link("../../../devices", "sys/bus/usb/devices/1-1")
	if err := unix.Mkfifo(filepath.Join(dir, "sys/devices/system/cpu/cpu0/cpu_capacity"), 0o644); err != nil {
		t.Skipf("needs FIFOs in the temporary directory: %v", err)
	}
	done := make(chan *Machine, 1)
	go func() {
		m, err := Discover(dir)
		if err != nil {
			t.Error(err)
		}
		done <- m
	}()
	select {
	case m := <-done:
		useEverything(t, m)
		if m.Online.Len() != 4 {
			t.Errorf("online %s: a link out of the tree was followed, or the CPUs were lost", m.Online)
		}
	case <-time.After(time.Minute):
		t.Fatal("the discovery hangs")
	}
}

// obeyModes makes this thread, and so this test, obey the modes of files, as
// root does not. The thread ends with the test.
func obeyModes(t *testing.T) {
	t.Helper()
	runtime.LockOSThread()
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		t.Fatal(err)
	}
	data[0].Effective &^= 1<<unix.CAP_DAC_OVERRIDE | 1<<unix.CAP_DAC_READ_SEARCH
	if err := unix.Capset(&header, &data[0]); err != nil {
		t.Fatal(err)
	}
}

// TestForbiddenFiles reads a tree in which some files may not be read.
func TestForbiddenFiles(t *testing.T) {
	dir := t.TempDir()
	obeyModes(t)
	if err := hardwaretest.CoralDevBoard().Write(dir); err != nil {
		t.Fatal(err)
	}
	file := "/sys/devices/system/cpu/cpu0/topology/core_id"
	if err := os.Chmod(filepath.Join(dir, file), 0); err != nil {
		t.Fatal(err)
	}
	m, err := Discover(dir)
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(m.Gaps); !strings.Contains(got, file) || !strings.Contains(got, "permission denied") {
		t.Errorf("gaps %s do not name %s", got, file)
	}
}

func TestHostileArchives(t *testing.T) {
	write := func(headers ...tar.Header) []byte {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, h := range headers {
			body := strings.Repeat("0", int(h.Size))
			if err := w.WriteHeader(&h); err != nil {
				t.Fatal(err)
			}
			if _, err := w.Write([]byte(body)); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	file := func(name string) tar.Header {
		return tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: 1}
	}
	good := file("m/sys/devices/system/cpu/online")
	cases := map[string]struct {
		data []byte
		gap  string
	}{
		"parent":      {write(good, file("m/../../etc/passwd")), "unsafe path"},
		"absolute":    {write(good, file("/etc/passwd")), "unsafe path"},
		"cut off":     {write(good, tar.Header{Name: "m/big", Typeflag: tar.TypeReg, Size: 4096})[:1800], "ends early"},
		"link loop":   {write(good, tar.Header{Name: "m/sys/bus/pci/devices", Typeflag: tar.TypeSymlink, Linkname: "devices"}), "too many links"},
		"file as dir": {write(good, file("m/sys/class"), file("m/sys/class/net/eth0")), ""},
		"device":      {write(good, tar.Header{Name: "m/sys/class/x", Typeflag: tar.TypeChar}), ""},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			read, gaps, err := readArchive(bytes.NewReader(c.data), "m.tar")
			if err != nil {
				t.Fatal(err)
			}
			m := discover(read, gaps)
			useEverything(t, m)
			if got := fmt.Sprint(m.Gaps); !strings.Contains(got, c.gap) {
				t.Errorf("gaps %s do not say %q", got, c.gap)
			}
		})
	}
	for name, data := range map[string][]byte{"m.tar": []byte("no archive"), "m.tar.gz": []byte("no gzip"), "m.tar.zst": {0x28}, "m.tar.xz": {1}, "m.tar.bz2": []byte("BZ"), "m.zip": nil} {
		if _, _, err := readArchive(bytes.NewReader(data), name); err == nil {
			t.Errorf("%s: damaged, but read without an error", name)
		}
	}
}

// TestManyFiles bounds what a map of a very large machine costs in memory.
func TestManyFiles(t *testing.T) {
	tree := hardwaretest.NewTree()
	for id := range 8192 {
		tree.Filef(fmt.Sprintf("/sys/devices/system/cpu/cpu%d/topology/core_id", id), "%d", id)
	}
	tree.File("/sys/devices/system/cpu/online", "0-8191")
	from := inMemoryTree(t, tree)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	m := discover(from, nil)
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > 256<<20 {
		t.Errorf("8192 CPUs took %d MiB", got>>20)
	}
	if len(m.CPUs) != 8192 {
		t.Errorf("%d CPUs", len(m.CPUs))
	}
}

func TestDecodeRefuses(t *testing.T) {
	for text, want := range map[string]error{
		`{"schema":"oscine.dev/hardware/v2"}`: ErrSchema,
		`{}`:                                  ErrSchema,
	} {
		if _, err := Decode([]byte(text)); !errors.Is(err, want) {
			t.Errorf("%s: got %v, want %v", text, err, want)
		}
	}
	for _, bad := range []string{"", "[]", `{"schema":"oscine.dev/hardware/v1","online":"3-1"}`, `{"online":7}`,
		`{"schema":"oscine.dev/hardware/v1","caches":[{"kind":"memory"}]}`, `{"schema":"oscine.dev/hardware/v1","pci":[{"degraded":true}]}`,
		`{"schema":"oscine.dev/hardware/v1","cpus":[{"core":3}]}`, `{"schema":"oscine.dev/hardware/v1","nodes":[{"distance":[1,2]}]}`} {
		if _, err := Decode([]byte(bad)); err == nil {
			t.Errorf("%q was decoded", bad)
		}
	}
}
