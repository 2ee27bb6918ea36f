package pytorch

import (
	"archive/zip"
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"oscine.dev/oscine/internal/serve/worker"
)

// library is the head of an ELF file for a machine.
func library(machine byte) string {
	return "\x7fELF\x02\x01\x01" + strings.Repeat("\x00", 11) + string([]byte{machine, 0}) + strings.Repeat("\x00", 40)
}

// archiveOf makes an archive of names and contents.
func archiveOf(t testing.TB, files ...[2]string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, f := range files {
		w, err := z.CreateHeader(&zip.FileHeader{Name: f[0], Method: zip.Store})
		if err == nil {
			_, err = w.Write([]byte(f[1]))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// claiming makes an archive of TorchScript with files that claim to have a size, and
// have four bytes.
func claiming(t testing.TB, method uint16, sizes ...uint64) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for i, size := range sizes {
		w, err := z.CreateRaw(&zip.FileHeader{Name: fmt.Sprint("m/code/", i), Method: method, CompressedSize64: 4, UncompressedSize64: size})
		if err == nil {
			_, err = w.Write([]byte("code"))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// scriptFiles are those of TorchScript, and more.
func scriptFiles(more ...[2]string) [][2]string {
	return append([][2]string{{"m/data.pkl", "x"}, {"m/code/__torch__.py", "x"}, {"m/constants.pkl", "x"}, {"m/version", "3"}}, more...)
}

func packageFiles(more ...[2]string) [][2]string {
	return append([][2]string{{"m/archive_format", "pt2"}, {"m/archive_version", "0"}}, more...)
}

func writeModel(t testing.TB, content []byte) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "model.pt")
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestInspect(t *testing.T) {
	for name, file := range map[string]string{"exported": "testdata/net.ts", "made": writeModel(t, archiveOf(t, scriptFiles()...))} {
		if a, err := inspect(file); err != nil || a.kind != script {
			t.Errorf("%s: got %+v, %v", name, a, err)
		}
	}
	own, other := byte(62), byte(183)
	if isARM() {
		own, other = other, own
	}
	a, err := inspect(writeModel(t, archiveOf(t, packageFiles([2]string{"m/data/aotinductor/b/x.wrapper.so", library(own)}, [2]string{"m/data/aotinductor/a/x.so", library(own)})...)))
	if err != nil || a.kind != compiled || !slices.Equal(a.models, []string{"a", "b"}) {
		t.Errorf("a package: got %+v, %v", a, err)
	}
	whole := archiveOf(t, scriptFiles()...)
	for name, test := range map[string]struct {
		content []byte
		want    string
	}{
		"empty":             {nil, "it is no archive of PyTorch"},
		"text":              {[]byte("this is no model"), "it is no archive of PyTorch"},
		"a pickle":          {[]byte("\x80\x02anything"), "the file is a Python pickle"},
		"cut off":           {whole[:len(whole)-30], "it is no archive of PyTorch"},
		"no files":          {append([]byte("PK\x03\x04"), archiveOf(t)...), "it is no archive of PyTorch"},
		"another zip":       {archiveOf(t, [2]string{"m/a.npy", "x"}), "it is no archive of PyTorch"},
		"torch.save":        {archiveOf(t, [2]string{"m/data.pkl", "x"}, [2]string{"m/data/0", "x"}, [2]string{"m/version", "3"}), "was written by torch.save"},
		"torch.export":      {archiveOf(t, packageFiles([2]string{"m/models/model.json", "{}"})...), "which only Python can run"},
		"another format":    {archiveOf(t, [2]string{"m/archive_format", "pt3"}), `its format is "pt3"`},
		"another processor": {archiveOf(t, packageFiles([2]string{"m/data/aotinductor/model/x.so", library(other)})...), "the package is compiled for"},
		"no library":        {archiveOf(t, packageFiles([2]string{"m/data/aotinductor/model/x.so", "#!/bin/sh"})...), "is no library"},
		"two folders":       {archiveOf(t, scriptFiles([2]string{"n/data/0", "x"})...), "not all its files are in one folder"},
		"at the top":        {archiveOf(t, scriptFiles([2]string{"x", "x"})...), "not all its files are in one folder"},
		"upwards":           {archiveOf(t, scriptFiles([2]string{"m/../../x", "x"})...), "leads elsewhere"},
		"absolute":          {archiveOf(t, scriptFiles([2]string{"/m/x", "x"})...), "leads elsewhere"},
		"backwards":         {archiveOf(t, scriptFiles([2]string{`m/..\x`, "x"})...), "leads elsewhere"},
		"twice":             {archiveOf(t, scriptFiles([2]string{"m/data.pkl", "y"})...), `two files of the name "m/data.pkl"`},
		"bomb":              {claiming(t, zip.Deflate, maxUnpacked+1), "unpacks to too much"},
		"bombs":             {claiming(t, zip.Deflate, maxUnpacked, maxUnpacked, maxUnpacked, maxUnpacked, 1), "unpacks to too much"},
		"two sizes":         {claiming(t, zip.Store, 5), "has two sizes"},
		"another method":    {claiming(t, 12, 4), "by a method that PyTorch does not use"},
		"overlapping":       {overlapping(t), "larger than the archive"},
	} {
		if _, err := inspect(writeModel(t, test.content)); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want %s", name, err, test.want)
		}
	}
	if _, err := inspect(t.TempDir()); err == nil {
		t.Error("a folder was accepted")
	}
}

// overlapping is an archive whose files have the same bytes.
func overlapping(t *testing.T) []byte {
	whole := archiveOf(t, scriptFiles([2]string{"m/data/0", strings.Repeat("x", 2000)})...)
	for _, name := range []string{"m/version", "m/constants.pkl"} { // in the list of files
		header := whole[bytes.LastIndex(whole, []byte(name))-46:]
		for _, at := range []int{20, 24} { // both sizes
			binary.LittleEndian.PutUint32(header[at:], 2000)
		}
	}
	return whole
}

// Nothing is loaded of a model of which too little is stated.
func TestUnstated(t *testing.T) {
	for want, options := range map[string]map[string]string{
		"does not say what its inputs are: state them":       nil,
		"does not say what its outputs are: state them":      {"inputs": "a:FP32[1]"},
		`the package has no model "other", it has model`:     {"method": "other"},
		"no method that the option reset could name":         {"reset": "reset_states", "inputs": "a:FP32[1]"},
		"does not say what its inputs are: state them in or": {"method": "model"},
	} {
		file := "testdata/net.ts"
		if options["method"] != "" || options["reset"] != "" {
			machine := byte(62)
			if isARM() {
				machine = 183
			}
			file = writeModel(t, archiveOf(t, packageFiles([2]string{"m/data/aotinductor/model/x.so", library(machine)})...))
		}
		if _, err := (&Engine{library: "/nowhere"}).Open(file, worker.Options{Threads: 1, Values: options}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: got %v, want %s", options, err, want)
		}
	}
}

func FuzzInspect(f *testing.F) {
	f.Add(archiveOf(f, scriptFiles()...))
	f.Add(archiveOf(f, packageFiles([2]string{"m/data/aotinductor/model/x.so", library(62)})...))
	f.Fuzz(func(t *testing.T, content []byte) {
		a, err := inspect(writeModel(t, content))
		if err == nil && (a.kind != script && a.kind != compiled || a.kind == compiled && len(a.models) == 0) {
			t.Errorf("accepted %+v", a)
		}
	})
}

// A package's library keeps all flags but that of an executable stack, and a failed
// run leaves no folder.
func TestUnpack(t *testing.T) {
	const ask = uint32(elf.PF_R | elf.PF_W | elf.PF_X)
	image := make([]byte, 64+2*56)
	copy(image, library(62))
	binary.LittleEndian.PutUint64(image[32:], 64)
	binary.LittleEndian.PutUint16(image[54:], 56)
	binary.LittleEndian.PutUint16(image[56:], 2)
	for at, kind := range map[int]elf.ProgType{64: elf.PT_LOAD, 64 + 56: elf.PT_GNU_STACK} {
		binary.LittleEndian.PutUint32(image[at:], uint32(kind))
		binary.LittleEndian.PutUint32(image[at+4:], ask)
	}
	const name = "data/aotinductor/model/x.so"
	dir, err := unpack(writeModel(t, archiveOf(t, packageFiles([2]string{"m/" + name, string(image)}, [2]string{"m/data/aotinductor/model/x.cpp", "source"})...)))
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	got, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	for at, want := range map[int]uint32{64: ask, 64 + 56: uint32(elf.PF_R | elf.PF_W)} {
		if flags := binary.LittleEndian.Uint32(got[at+4:]); flags != want {
			t.Errorf("flags at %d are %x, want %x", at, flags, want)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "data/aotinductor/model/x.cpp")); err == nil {
		t.Error("source was unpacked")
	}
	t.Setenv("TMPDIR", t.TempDir())
	if _, err := unpack(writeModel(t, archiveOf(t, packageFiles([2]string{"m/" + name, string(image[:100])})...))); err == nil {
		t.Error("half a library was accepted")
	}
	if left, err := os.ReadDir(os.TempDir()); err != nil || len(left) > 0 {
		t.Errorf("a failed run left %v, %v", left, err)
	}
}
