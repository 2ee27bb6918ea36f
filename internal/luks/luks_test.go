package luks

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"oscine.dev/oscine/internal/debian"
)

// newDevice is a file of 32 MiB with a header and one key slot for "first".
func newDevice(t *testing.T) (f *os.File, h *Header, key []byte) {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "device"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(32 << 20); err != nil {
		t.Fatal(err)
	}
	key = NewKey()
	h = Create(key, "oscine-data")
	addKey(t, f, h, "first", key)
	if err := h.Write(f); err != nil {
		t.Fatal(err)
	}
	return f, h, key
}

func addKey(t *testing.T, f *os.File, h *Header, passphrase string, key []byte) int {
	t.Helper()
	n, err := h.AddKey(f, []byte(passphrase), key)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func read(t *testing.T, f *os.File) *Header {
	t.Helper()
	h, err := Read(f)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestKeySlots(t *testing.T) {
	f, h, key := newDevice(t)
	second := addKey(t, f, h, "second", key)
	if err := h.SetToken("kind", second, map[string]any{"more": "x"}); err != nil {
		t.Fatal(err)
	}
	if err := h.Write(f); err != nil {
		t.Fatal(err)
	}
	h = read(t, f)
	for _, passphrase := range []string{"first", "second"} {
		if got, err := h.Unlock(f, []byte(passphrase), h.Slots()...); err != nil || !bytes.Equal(got, key) {
			t.Errorf("%s: got %d bytes, %v", passphrase, len(got), err)
		}
	}
	if _, err := h.Unlock(f, []byte("third"), h.Slots()...); !errors.Is(err, ErrWrongKey) {
		t.Errorf("wrong passphrase: got %v", err)
	}
	if raw, slots := h.Token("kind"); !strings.Contains(string(raw), `"more":"x"`) || len(slots) != 1 || slots[0] != second {
		t.Errorf("token: got %s, %v", raw, slots)
	}
	erase := h.RemoveKey(0)
	if err := errors.Join(h.Write(f), erase(f)); err != nil {
		t.Fatal(err)
	}
	h = read(t, f)
	if _, err := h.Unlock(f, []byte("first"), h.Slots()...); !errors.Is(err, ErrWrongKey) {
		t.Errorf("removed passphrase: got %v", err)
	}
	if n := addKey(t, f, h, "again", key); n != 0 {
		t.Errorf("the slot that is free again: got %d", n)
	}
	if got, err := h.Unlock(f, []byte("second"), second); err != nil || !bytes.Equal(got, key) {
		t.Errorf("the other slot afterwards: %v", err)
	}
}

// TestDamage takes either copy away, as a power failure while it is written does.
func TestDamage(t *testing.T) {
	for _, at := range []int64{0, 4100, headerSize, headerSize + 4100} {
		f, _, key := newDevice(t)
		if _, err := f.WriteAt([]byte("damage"), at); err != nil {
			t.Fatal(err)
		}
		h := read(t, f)
		if got, err := h.Unlock(f, []byte("first"), 0); err != nil || !bytes.Equal(got, key) {
			t.Errorf("damage at %d: %v", at, err)
		}
		// Writing it again repairs the other copy.
		if err := h.Write(f); err != nil {
			t.Fatal(err)
		}
		if _, err := readAt(f, 0); err != nil {
			t.Errorf("after damage at %d: %v", at, err)
		}
	}
	f, _, _ := newDevice(t)
	if _, err := f.WriteAt(make([]byte, 2*headerSize), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(f); !errors.Is(err, ErrNoHeader) {
		t.Errorf("no header: got %v", err)
	}
}

func TestTable(t *testing.T) {
	_, h, key := newDevice(t)
	table := h.Table(key, "254:4")
	if !strings.HasSuffix(table, " 0 254:4 32768 1 sector_size:4096") {
		t.Errorf("got %s", table)
	}
	if got, err := KeyOf(table); err != nil || !bytes.Equal(got, key) {
		t.Errorf("the key in it: %v", err)
	}
	for _, bad := range []string{"", "aes-xts-plain64 :64:logon:x 0 254:4 0", "aes"} {
		if _, err := KeyOf(bad); err == nil {
			t.Errorf("%q: got no error", bad)
		}
	}
}

// cryptsetup runs the real one.
func cryptsetup(t *testing.T, input string, args ...string) string {
	t.Helper()
	tool, err := debian.FindTool(t.Context(), "cryptsetup")
	if err != nil {
		t.Skipf("needs cryptsetup: %v", err)
	}
	cmd := tool.Command(t.Context(), args...)
	cmd.Stdin = strings.NewReader(input)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		t.Fatalf("cryptsetup %s: %v\n%s", strings.Join(args, " "), err, out)
	} else if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// TestCryptsetup has cryptsetup open what this package made, and the reverse.
func TestCryptsetup(t *testing.T) {
	f, h, key := newDevice(t)
	if err := h.SetToken("oscine-test", 0, map[string]any{"blob": []byte{1, 2}}); err != nil {
		t.Fatal(err)
	}
	if err := h.Write(f); err != nil {
		t.Fatal(err)
	}
	dump := cryptsetup(t, "", "luksDump", f.Name())
	for _, want := range []string{"oscine-data", "aes-xts-plain64", "oscine-test", "16777216 [bytes]"} {
		if !strings.Contains(dump, want) {
			t.Errorf("luksDump lacks %q:\n%s", want, dump)
		}
	}
	cryptsetup(t, "first", "open", "--test-passphrase", "--key-file=-", f.Name())
	out := filepath.Join(t.TempDir(), "volume.key")
	cryptsetup(t, "first", "luksDump", "--batch-mode", "--dump-volume-key", "--volume-key-file", out, "--key-file=-", f.Name())
	if got, err := os.ReadFile(out); err != nil || !bytes.Equal(got, key) {
		t.Errorf("the volume key that cryptsetup finds is another one: %v", err)
	}

	// One of cryptsetup's own slots is read, and survives ours.
	pass := filepath.Join(t.TempDir(), "pass")
	if err := os.WriteFile(pass, []byte("theirs"), 0o600); err != nil {
		t.Fatal(err)
	}
	cryptsetup(t, "first", "luksAddKey", "--batch-mode", "--pbkdf=pbkdf2", "--pbkdf-force-iterations=1000", "--hash=sha256", "--key-file=-", f.Name(), pass)
	h = read(t, f)
	if got, err := h.Unlock(f, []byte("theirs"), h.Slots()...); err != nil || !bytes.Equal(got, key) {
		t.Errorf("cryptsetup's key slot: %v", err)
	}
	addKey(t, f, h, "ours", key)
	if err := h.Write(f); err != nil {
		t.Fatal(err)
	}
	for _, passphrase := range []string{"first", "theirs", "ours"} {
		cryptsetup(t, passphrase, "open", "--test-passphrase", "--key-file=-", f.Name())
	}
	// cryptsetup changes a slot of ours and leaves the space behind the slots alone.
	if _, err := f.WriteAt([]byte("kept"), FreeStart); err != nil {
		t.Fatal(err)
	}
	cryptsetup(t, "ours", "luksKillSlot", "--batch-mode", "--key-file=-", f.Name(), "0")
	cryptsetup(t, "ours", "repair", "--batch-mode", f.Name())
	kept := make([]byte, 4)
	if _, err := f.ReadAt(kept, FreeStart); err != nil || string(kept) != "kept" {
		t.Errorf("the free space holds %q, %v", kept, err)
	}
}

func FuzzRead(f *testing.F) {
	key := make([]byte, KeySize)
	h := Create(key, "x")
	d := &memory{make([]byte, 1<<20)}
	if _, err := h.AddKey(d, []byte("first"), key); err != nil {
		f.Fatal(err)
	}
	if err := h.Write(d); err != nil {
		f.Fatal(err)
	}
	body, _, _ := bytes.Cut(d.b[binarySize:headerSize], []byte{0})
	f.Add(body)
	f.Add([]byte(`{"keyslots":{"0":{"area":{"offset":"1"}}},"segments":{}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		// The checksum would hide all else.
		d := &memory{bytes.Clone(d.b)}
		clear(d.b[binarySize:headerSize])
		copy(d.b[binarySize:headerSize], body)
		sum := checksum(d.b[:headerSize])
		copy(d.b[448:], sum[:])
		h, err := readAt(d, 0)
		if err != nil {
			return
		}
		_, _ = h.Token("x")
		_ = h.Table(key, "1:2")
		_, _ = h.room()
		for _, n := range h.Slots() {
			if s, err := h.slot(n); err == nil && s.KDF.Iterations <= 1000 {
				_, _ = h.Unlock(d, []byte("first"), n)
			}
		}
	})
}

// memory is a Device.
type memory struct{ b []byte }

func (m *memory) ReadAt(p []byte, at int64) (int, error) { return bytes.NewReader(m.b).ReadAt(p, at) }

func (m *memory) WriteAt(p []byte, at int64) (int, error) {
	if at < 0 || at+int64(len(p)) > int64(len(m.b)) {
		return 0, errors.New("out of range")
	}
	return copy(m.b[at:], p), nil
}

func (m *memory) Sync() error { return nil }
