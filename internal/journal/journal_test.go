package journal

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 5, time.UTC)

func open(t *testing.T, path string, bytes int64) *Writer {
	t.Helper()
	w := Open(path, bytes)
	t.Cleanup(func() { w.Close() })
	return w
}

func add(t *testing.T, w *Writer, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if err := w.Append(Line{Time: noon, Stream: Stdout, Text: text}); err != nil {
			t.Fatal(err)
		}
	}
}

func texts(t *testing.T, path string, query Query) []string {
	t.Helper()
	var got []string
	err := Read(t.Context(), path, query, func(line Line) error {
		got = append(got, line.Text)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestLinesComeBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "deep", "a.log")
	w := open(t, path, 0)
	want := []Line{
		{Time: noon, Stream: Stdout, Text: "one"},
		{Time: noon.Add(time.Second), Stream: Stderr, Text: ""},
		{Time: noon.Add(2 * time.Second), Stream: Stdout, Text: "tab\t and \x00\xff bytes"},
	}
	for _, line := range want {
		if err := w.Append(line); err != nil {
			t.Fatal(err)
		}
	}
	var got []Line
	if err := Read(t.Context(), path, Query{}, func(line Line) error { got = append(got, line); return nil }); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("lines changed on disk (-want +got):\n%s", diff)
	}
}

func TestQueryChooses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.log")
	w := open(t, path, 0)
	for i := range 5 {
		if err := w.Append(Line{Time: noon.Add(time.Duration(i) * time.Minute), Stream: Stdout, Text: fmt.Sprint(i)}); err != nil {
			t.Fatal(err)
		}
	}
	for name, test := range map[string]struct {
		query Query
		want  string
	}{
		"all":         {Query{}, "0 1 2 3 4"},
		"tail":        {Query{Tail: 2}, "3 4"},
		"long tail":   {Query{Tail: 99}, "0 1 2 3 4"},
		"no tail":     {Query{Tail: -1}, ""},
		"since":       {Query{Since: noon.Add(3 * time.Minute)}, "3 4"},
		"since, tail": {Query{Since: noon.Add(time.Minute), Tail: 1}, "4"},
	} {
		if got := strings.Join(texts(t, path, test.query), " "); got != test.want {
			t.Errorf("%s: got %q, want %q", name, got, test.want)
		}
	}
	if got := texts(t, filepath.Join(t.TempDir(), "absent"), Query{}); got != nil {
		t.Errorf("an absent journal has lines: %q", got)
	}
}

func TestLongLinesAreParts(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.log")
	w := open(t, path, 0)
	long := strings.Repeat("x", 2*MaxText+7)
	add(t, w, long, "two\nlines", "end")
	if err := w.Copy(Stdout, strings.NewReader(long+"\nshort\nno newline")); err != nil {
		t.Fatal(err)
	}
	var whole []string
	var part strings.Builder
	err := Read(t.Context(), path, Query{}, func(line Line) error {
		part.WriteString(line.Text)
		if !line.Partial {
			whole = append(whole, part.String())
			part.Reset()
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{long, "two", "lines", "end", long, "short", "no newline"}
	if diff := cmp.Diff(want, whole); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestBoundHolds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.log")
	w := open(t, path, minBytes)
	var last string
	for i := range 5000 {
		last = fmt.Sprintf("%d %s", i, strings.Repeat("y", i%300))
		add(t, w, last)
		if i%1000 == 0 { // a restart keeps the bound
			w.Close()
			w = open(t, path, minBytes)
		}
	}
	var total int64
	for _, name := range []string{path, older(path)} {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		total += info.Size()
	}
	if total > minBytes {
		t.Errorf("the journal takes %d bytes, its bound is %d", total, minBytes)
	}
	got := texts(t, path, Query{})
	if len(got) < 100 || got[len(got)-1] != last {
		t.Errorf("%d lines are left, the last is %.20q, want %.20q", len(got), got[len(got)-1], last)
	}
}

func TestTornWritesCostOnlyThemselves(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.log")
	w := open(t, path, 0)
	add(t, w, "before")
	w.Close()
	for _, torn := range []string{"2026-03-01T12:00:00Z stdo", "\x00\x00\x00\x00", strings.Repeat("z", 3*maxRecord)} {
		file, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		file.WriteString(torn)
		file.Close()
		w = open(t, path, 0)
		add(t, w, "after")
		w.Close()
	}
	if diff := cmp.Diff([]string{"before", "after", "after", "after"}, texts(t, path, Query{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestFollowMissesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.log")
	const lines = 4000
	go func() {
		time.Sleep(50 * time.Millisecond) // the reader waits for a journal to appear
		w := Open(path, minBytes)
		defer w.Close()
		for i := range lines {
			w.Append(Line{Time: noon, Stream: Stdout, Text: fmt.Sprintf("%d %s", i, strings.Repeat("f", 60))})
			if i%200 == 199 { // about one rotation per look of the reader, at most
				time.Sleep(poll / 2)
			}
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	enough := errors.New("enough")
	next := 0
	err := Read(ctx, path, Query{Follow: true}, func(line Line) error {
		if number, _, _ := strings.Cut(line.Text, " "); number != fmt.Sprint(next) {
			return fmt.Errorf("got line %s, want %d", number, next)
		}
		if next++; next == lines {
			return enough
		}
		return nil
	})
	if err != enough {
		t.Errorf("after %d lines: %v", next, err)
	}
}

// A reader that follows ends with the last line that was there when it was told
// that no more come.
func TestFollowToTheEnd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.log")
	w := open(t, path, 0)
	add(t, w, "first")
	complete := make(chan struct{})
	var got []string
	err := Read(t.Context(), path, Query{Follow: true, Complete: complete}, func(line Line) error {
		if len(got) == 0 {
			add(t, w, "second", "third")
			close(complete)
		}
		got = append(got, line.Text)
		return nil
	})
	if want := []string{"first", "second", "third"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v; want %q", got, err, want)
	}
}

func TestRemove(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.log")
	add(t, open(t, path, 0), "x")
	for range 2 {
		if err := Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	if got := texts(t, path, Query{}); got != nil {
		t.Errorf("lines outlive their journal: %q", got)
	}
}

// TestSink runs this test binary as the sink, as a shim would.
func TestSink(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.log")
	outR, outW, _ := os.Pipe()
	errR, errW, _ := os.Pipe()
	readyR, readyW, _ := os.Pipe()
	cmd := exec.Command(os.Args[0], "bytes", "0", "path", path, "owner", fmt.Sprintf("%d:%d", os.Getuid(), os.Getgid()))
	cmd.Env = append(os.Environ(), "JOURNAL_TEST_SINK=1")
	cmd.ExtraFiles = []*os.File{outR, errR, readyW}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for _, f := range cmd.ExtraFiles {
		f.Close()
	}
	if b, err := io.ReadAll(readyR); err != nil || len(b) != 1 {
		t.Fatalf("the sink said %q, %v when ready", b, err)
	}
	fmt.Fprint(outW, "to stdout\n")
	fmt.Fprint(errW, "to stderr, no newline")
	outW.Close()
	errW.Close()
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	got := map[Stream]string{}
	if err := Read(t.Context(), path, Query{}, func(line Line) error { got[line.Stream] = line.Text; return nil }); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[Stream]string{Stdout: "to stdout", Stderr: "to stderr, no newline"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestSinkRefusesBadArguments(t *testing.T) {
	for _, args := range [][]string{nil, {"path"}, {"bytes", "1"}, {"path", "x", "bytes", "many"}, {"path", "x", "size", "1"}, {"path", "x", "bytes", "-1"}, {"path", "x", "owner", "root"}} {
		if _, err := parseSinkArgs(args); err == nil {
			t.Errorf("%q is taken", args)
		}
	}
}

func TestMain(m *testing.M) {
	if os.Getenv("JOURNAL_TEST_SINK") != "" {
		if err := Sink(os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func FuzzRead(f *testing.F) {
	f.Add([]byte("2026-03-01T12:00:00.000000005Z stdout F hello\n"))
	f.Add([]byte("2026-03-01T12:00:00Z stderr P:x a\n\x00\n stdout F \n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(t.TempDir(), "a.log")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		err := Read(t.Context(), path, Query{}, func(line Line) error {
			again, err := parseLine(line.appendTo(nil)[:len(line.appendTo(nil))-1])
			if err != nil || again.Text != line.Text || !again.Time.Equal(line.Time) {
				t.Errorf("%+v comes back as %+v, %v", line, again, err)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	})
}
