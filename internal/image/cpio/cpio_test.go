package cpio

import (
	"bytes"
	"io/fs"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func archive(t testing.TB) []byte {
	t.Helper()
	var b bytes.Buffer
	w := NewWriter(&b, 1)
	w.Add("etc", fs.ModeDir|0o755, nil)
	w.Add("etc/x", 0o644, []byte("hello"))
	w.Add("init", fs.ModeSymlink|0o777, []byte("etc/x"))
	w.AddCharDevice("console", 0o600, 5, 1)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestReadBack(t *testing.T) {
	want := []Entry{
		{Path: "etc", Mode: fs.ModeDir | 0o755, Data: []byte{}},
		{Path: "etc/x", Mode: 0o644, Size: 5, Data: []byte("hello")},
		{Path: "init", Mode: fs.ModeSymlink | 0o777, Size: 5, Link: "etc/x", Data: []byte("etc/x")},
		{Path: "console", Mode: fs.ModeDevice | fs.ModeCharDevice | 0o600, Data: []byte{}},
	}
	data := archive(t)
	got, err := Read(data)
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Error(err, diff)
	}
	for n := range len(data) - 124 { // the trailer and its padding
		if _, err := Read(data[:n]); err == nil {
			t.Fatalf("the first %d bytes were accepted", n)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add(archive(f))
	f.Fuzz(func(t *testing.T, data []byte) {
		entries, err := Read(data)
		for _, e := range entries {
			if err == nil && int64(len(e.Data)) != e.Size {
				t.Errorf("%s: %d bytes of %d", e.Path, len(e.Data), e.Size)
			}
		}
	})
}
