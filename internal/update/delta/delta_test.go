package delta

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	erofs "github.com/erofs/go-erofs"

	"oscine.dev/oscine/internal/release"
	"oscine.dev/oscine/internal/update"
)

// noise is bytes that zstd cannot make smaller, the same at each call.
func noise(seed uint64, n int) []byte {
	out, random := make([]byte, n), rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	if _, err := random.Read(out); err != nil {
		panic(err)
	}
	return out
}

// file is a file of a test's root.
type file struct {
	name string
	data []byte
}

// rootOf writes a root as package image does: erofs, then the hash tree.
func rootOf(t *testing.T, files ...file) *Content {
	t.Helper()
	out, err := os.Create(filepath.Join(t.TempDir(), "root"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { out.Close() })
	w := erofs.Create(out, erofs.WithBlockSize(release.BlockSize), erofs.WithBuildTime(1, 0))
	for _, f := range files {
		if dir := filepath.Dir(f.name); dir != "." {
			if err := w.Mkdir("/"+dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
				t.Fatal(err)
			}
		}
		to, err := w.Create("/" + f.name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(to, bytes.NewReader(f.data)); err != nil {
			t.Fatal(err)
		}
		if err := to.Close(); err != nil {
			t.Fatal(err)
		}
		if err := w.Chtimes("/"+f.name, time.Unix(1, 0), time.Unix(1, 0)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	size, err := out.Seek(0, io.SeekEnd)
	if err != nil {
		t.Fatal(err)
	}
	size = (size + release.BlockSize - 1) / release.BlockSize * release.BlockSize
	if err := out.Truncate(size); err != nil {
		t.Fatal(err)
	}
	tree, v, err := release.HashTree(io.NewSectionReader(out, 0, size), []byte("salt"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := out.WriteAt(tree, size); err != nil {
		t.Fatal(err)
	}
	c, err := Root(out, size+int64(len(tree)), v)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// oldRoot and newRoot differ in one large file and one small one.
func oldRoot(t *testing.T) *Content {
	return rootOf(t, file{"daemon", noise(1, 13<<20)}, file{"lib/libx.so.1.2", noise(2, 1<<20)}, file{"text", []byte("old text")})
}

func newRoot(t *testing.T) *Content {
	daemon := noise(1, 13<<20)
	daemon = append(daemon[:5<<20:5<<20], append(noise(3, 10<<10), daemon[5<<20:]...)...)
	return rootOf(t, file{"daemon", daemon}, file{"lib/libx.so.1.3", noise(2, 1<<20)}, file{"more", noise(4, 5000)}, file{"text", []byte("new text")})
}

func describe(t *testing.T, c *Content) *update.Content {
	t.Helper()
	sum := sha256.New()
	if _, err := io.Copy(sum, io.NewSectionReader(c.Data, 0, c.Size)); err != nil {
		t.Fatal(err)
	}
	return &update.Content{Size: c.Size, SHA256: update.Digest(sum.Sum(nil))}
}

// job makes a transfer and returns it ready to apply, with its bytes, which the
// caller may change.
func job(t *testing.T, content, old *Content) (Job, *[]byte) {
	t.Helper()
	out, err := os.Create(filepath.Join(t.TempDir(), "transfer"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	transfer, err := Make(t.Context(), content, old, out)
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(out.Name())
	if err != nil {
		t.Fatal(err)
	}
	if int64(len(data)) != transfer.Size || sha256.Sum256(data) != transfer.SHA256 {
		t.Fatalf("the transfer has %d bytes, not the %d that are told, or another digest", len(data), transfer.Size)
	}
	slot, err := os.Create(filepath.Join(t.TempDir(), "slot"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { slot.Close() })
	j := Job{Content: describe(t, content), Transfer: transfer, Slot: slot, Open: func(_ context.Context, at int64) (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(data[min(at, int64(len(data))):])), nil
	}}
	if old != nil {
		j.Base = &update.Base{Size: old.Size, Data: old.Data}
	}
	return j, &data
}

func TestTransfers(t *testing.T) {
	content, old := newRoot(t), oldRoot(t)
	for name, base := range map[string]*Content{"full": nil, "delta": old} {
		t.Run(name, func(t *testing.T) {
			j, data := job(t, content, base)
			var last update.Progress
			j.Report = func(p update.Progress) { last = p }
			if err := Apply(t.Context(), j); err != nil {
				t.Fatal(err)
			}
			if want := (update.Progress{Delta: base != nil, Done: content.Size, Size: content.Size, Fetched: int64(len(*data)), ToFetch: int64(len(*data))}); last != want {
				t.Errorf("progress %+v, want %+v", last, want)
			}
			if base != nil && len(*data) > 40<<10 {
				t.Errorf("15 KiB of new bytes take %d", len(*data))
			}
			again, data2 := job(t, content, base)
			if again.Transfer != j.Transfer || !bytes.Equal(*data, *data2) {
				t.Error("made twice, the transfers differ")
			}
		})
	}
}

// An interrupted transfer goes on after the parts that are in the slot.
func TestResume(t *testing.T) {
	content, old := newRoot(t), oldRoot(t)
	for name, base := range map[string]*Content{"full": nil, "delta": old} {
		t.Run(name, func(t *testing.T) {
			j, data := job(t, content, base)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			parts, first := 0, int64(0)
			j.Report = func(p update.Progress) {
				if parts++; parts == 2 { // the first says where it begins
					first = p.Fetched
					cancel()
				}
			}
			if err := Apply(ctx, j); !errors.Is(err, context.Canceled) {
				t.Fatalf("got %v", err)
			}
			var last update.Progress
			j.Report = func(p update.Progress) { last = p }
			if err := Apply(t.Context(), j); err != nil {
				t.Fatal(err)
			}
			if last.Done != content.Size || last.Fetched != int64(len(*data))-first+j.Transfer.IndexSize {
				t.Errorf("after %d bytes the second call fetched %d of %d, progress %+v", first, last.Fetched, len(*data), last)
			}
			// A third finds all in place and reads the index alone.
			if err := Apply(t.Context(), j); err != nil || last.Fetched != j.Transfer.IndexSize {
				t.Errorf("got %v, %+v", err, last)
			}
		})
	}
}

// Whatever byte of a transfer is changed or missing, it is told, and the rest
// still helps.
func TestDamagedTransfer(t *testing.T) {
	content, old := newRoot(t), oldRoot(t)
	j, data := job(t, content, old)
	whole := *data
	for _, at := range []int64{0, j.Transfer.IndexSize - 1, j.Transfer.IndexSize, j.Transfer.Size / 2, j.Transfer.Size - 1} {
		for name, damage := range map[string]func() []byte{
			"flipped": func() []byte { d := bytes.Clone(whole); d[at] ^= 4; return d },
			"cut off": func() []byte { return whole[:at] },
		} {
			*data = damage()
			if err := Apply(t.Context(), j); !errors.Is(err, update.ErrDamaged) {
				t.Errorf("%s at %d: got %v", name, at, err)
			}
		}
	}
	*data = append(bytes.Clone(whole), noise(9, 100)...) // more than was signed is not read
	if err := Apply(t.Context(), j); err != nil {
		t.Fatal(err)
	}
}

// A delta against other old content does not fit, and says so.
func TestOtherBase(t *testing.T) {
	j, _ := job(t, newRoot(t), oldRoot(t))
	other := rootOf(t, file{"daemon", noise(7, 13<<20)})
	for name, base := range map[string]*update.Base{
		"other": {Size: other.Size, Data: other.Data}, "short": {Data: bytes.NewReader(noise(1, 100))}, "none": nil,
	} {
		j.Base = base
		if err := Apply(t.Context(), j); !errors.Is(err, ErrBase) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// fullSlot is a disk without room.
type fullSlot struct{ *os.File }

var errFull = errors.New("no space left")

func (fullSlot) WriteAt([]byte, int64) (int, error) { return 0, errFull }

// forgetful is a disk that does not keep what it is given.
type forgetful struct{ *os.File }

func (f forgetful) WriteAt(p []byte, at int64) (int, error) {
	q := bytes.Clone(p)
	q[0] ^= 1
	return f.File.WriteAt(q, at)
}

func TestBadSlot(t *testing.T) {
	j, _ := job(t, newRoot(t), nil)
	file := j.Slot.(*os.File)
	j.Slot = fullSlot{file}
	if err := Apply(t.Context(), j); !errors.Is(err, errFull) {
		t.Errorf("got %v", err)
	}
	j.Slot = forgetful{file}
	if err := Apply(t.Context(), j); !errors.Is(err, update.ErrDamaged) {
		t.Errorf("got %v", err)
	}
}

// A root that does not match its hash tree is not made into a transfer.
func TestDamagedRoot(t *testing.T) {
	content := newRoot(t)
	if _, err := content.Data.(*os.File).WriteAt([]byte{1}, content.Size/2); err != nil {
		t.Fatal(err)
	}
	out, err := os.Create(filepath.Join(t.TempDir(), "transfer"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if _, err := Make(t.Context(), content, nil, out); err == nil {
		t.Error("a damaged root was taken")
	}
	left, err := os.ReadDir(filepath.Dir(out.Name()))
	if err != nil || len(left) != 1 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestLikeness(t *testing.T) {
	old := &Content{Size: 1 << 20, spans: []span{
		{"usr/lib/modules/7.2.9/kernel/fs/ext4/ext4.ko", 4096, 100}, {"usr/lib/modules/7.2.9/kernel/other/ext4.ko", 8192, 100},
		{"usr/lib/libx.so.1.2.3", 12288, 100}, {"usr/bin/daemon", 16384, 100},
	}}
	like := newLikeness(old)
	for name, want := range map[string]string{
		"usr/lib/modules/7.2.12/kernel/fs/ext4/ext4.ko": "usr/lib/modules/7.2.9/kernel/fs/ext4/ext4.ko",
		"usr/lib/libx.so.1.3.0":                         "usr/lib/libx.so.1.2.3",
		"usr/bin/daemon":                                "usr/bin/daemon",
		"usr/bin/new":                                   "",
	} {
		if got, found := like.find(span{name, 0, 100}); got.name != want || found != (want != "") {
			t.Errorf("%s: got %q, %v, want %q", name, got.name, found, want)
		}
	}
}

// Every byte is in one part, and no dictionary is too large.
func TestPlanCovers(t *testing.T) {
	content, old := newRoot(t), oldRoot(t)
	for _, base := range []*Content{nil, old} {
		at := int64(0)
		for _, p := range plan(content, base) {
			if p.offset != at || p.size <= 0 || p.size > maxPart {
				t.Fatalf("part of %d bytes at %d, want it at %d", p.size, p.offset, at)
			}
			at += p.size
			if err := (&part{Size: p.size, Data: 1, Old: p.old}).check(p.size); err != nil {
				t.Error(err)
			}
		}
		if at != content.treeStart() {
			t.Errorf("the parts end at %d, want %d", at, content.treeStart())
		}
	}
}

func TestIndexFaults(t *testing.T) {
	for _, text := range []string{
		`{`, `{"format":2,"parts":[{"size":10,"data":5}]}`, `{"format":1}`, `{"format":1,"parts":[{"size":9,"data":5}]}`,
		`{"format":1,"parts":[{"size":10,"data":4}]}`, `{"format":1,"parts":[{"size":11,"data":5},{"size":-1,"data":0}]}`,
		`{"format":1,"parts":[{"size":10,"data":5,"old":[[0,-1]]}]}`, `{"format":1,"parts":[{"size":10,"data":5,"old":[[-1,1]]}]}`,
		`{"format":1,"parts":[{"size":10,"data":5,"old":[[0,16777216],[0,1]]}]}`, `{"format":1,"parts":[{"size":10,"data":5,"salt":"ab"}]}`,
	} {
		if _, err := parseIndex([]byte(text), 10, 5); err == nil {
			t.Errorf("%s was taken", text)
		}
	}
	if _, err := parseIndex([]byte(`{"format":1,"parts":[{"size":10,"data":5,"old":[[0,1],[5,9]]}]}`), 10, 5); err != nil {
		t.Error(err)
	}
}

func FuzzParseIndex(f *testing.F) {
	f.Add([]byte(`{"format":1,"parts":[{"size":10,"data":5,"old":[[0,1],[5,9]]},{"size":4096,"salt":"ab"}]}`), int64(4106), int64(5))
	f.Fuzz(func(t *testing.T, text []byte, size, data int64) {
		x, err := parseIndex(text, size, data)
		if err != nil {
			return
		}
		for _, p := range x.Parts {
			size -= p.Size
		}
		if size != 0 {
			t.Errorf("%s leaves %d bytes", text, size)
		}
	})
}

// FuzzApply decodes frames that nobody signed, as if they were.
func FuzzApply(f *testing.F) {
	f.Add([]byte{0x28, 0xb5, 0x2f, 0xfd, 0x20, 0x01, 0x09, 0x00, 0x00, 0x61}, []byte("old"))
	f.Fuzz(func(t *testing.T, frame, old []byte) {
		a := &applier{frame: frame, Job: Job{Base: &update.Base{Data: bytes.NewReader(old)}}}
		p := &part{Size: 1000}
		if len(old) > 0 {
			p.Old = []piece{{0, int64(len(old))}}
		}
		if err := a.decode(p); err == nil && len(a.content) != 1000 {
			t.Errorf("%d bytes were made of 1000", len(a.content))
		}
	})
}

// program is like a program: instructions, every eighth of which holds an
// address that moves when something is put in before it.
func program(size, shift int) []byte {
	data := noise(50, size)
	for i := 0; i+8 <= size; i += 8 * 8 {
		binary.LittleEndian.PutUint32(data[i:], uint32(i*7+shift))
	}
	return data
}

// Addresses that moved cost little.
func TestProgramsThatMoved(t *testing.T) {
	old := program(2<<20, 0)
	data := append(append(bytes.Clone(old[:4096]), noise(51, 640)...), program(2<<20, 640)[4096:]...)
	script, rest := subtractOld(data, old)
	plain, err := encode(data, old)
	if err != nil {
		t.Fatal(err)
	}
	frame, err := encode(append(bytes.Clone(script), rest...), old)
	if err != nil {
		t.Fatal(err)
	}
	if len(frame)*2 > len(plain) {
		t.Errorf("%d bytes with subtraction, %d without", len(frame), len(plain))
	}
	if err := addOld(rest, script, old); err != nil || !bytes.Equal(rest, data) {
		t.Errorf("what was subtracted is not added again: %v", err)
	}
}

// Pieces of the old, moved, repeated, cut and changed, come back.
func TestSubtractAnything(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 500 {
		old := noise(uint64(random.IntN(1000)), random.IntN(4000))
		var data []byte
		for range random.IntN(12) {
			from := random.IntN(len(old) + 1)
			piece := bytes.Clone(old[from : from+random.IntN(len(old)-from+1)])
			for range random.IntN(20) {
				if len(piece) > 0 {
					piece[random.IntN(len(piece))] += byte(random.IntN(3))
				}
			}
			data = append(data, piece...)
			data = append(data, noise(uint64(random.IntN(1000)), random.IntN(50))...)
		}
		script, rest := subtractOld(data, old)
		if err := addOld(rest, script, old); err != nil || !bytes.Equal(rest, data) {
			t.Fatalf("%v: %d bytes from %d", err, len(data), len(old))
		}
	}
}

func TestScriptFaults(t *testing.T) {
	for _, script := range [][]byte{
		{0x80}, {1}, {11, 0}, {0, 11, 0}, {5, 6, 0}, {0, 5}, {0, 5, 1}, {0, 5, 20}, {0, 5, 0x80}, {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0},
	} {
		if err := addOld(make([]byte, 10), script, make([]byte, 12)); !errors.Is(err, errScript) {
			t.Errorf("%v: got %v", script, err)
		}
	}
	made := make([]byte, 10)
	if err := addOld(made, []byte{2, 3, 2, 1, 2, 3}, []byte{0, 1, 2, 3, 4, 5}); err != nil || !bytes.Equal(made, []byte{0, 0, 1, 2, 3, 0, 2, 3, 0, 0}) {
		t.Errorf("got %v, %v", made, err)
	}
}

func FuzzAddOld(f *testing.F) {
	f.Add(uint16(10), []byte{2, 3, 2, 1, 2, 3}, []byte{0, 1, 2, 3, 4, 5})
	f.Fuzz(func(t *testing.T, size uint16, script, old []byte) {
		if err := addOld(make([]byte, size), script, old); err != nil && !errors.Is(err, errScript) {
			t.Error(err)
		}
	})
}

// Whatever two files hold, what is subtracted is added again.
func FuzzSubtract(f *testing.F) {
	f.Add(program(4096, 0), program(4096, 64))
	f.Fuzz(func(t *testing.T, data, old []byte) {
		script, rest := subtractOld(data, old)
		if err := addOld(rest, script, old); err != nil || !bytes.Equal(rest, data) {
			t.Errorf("%v: %x and %x", err, data, old)
		}
	})
}
