package container

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func serving(t *testing.T, spec Spec) *Runtime {
	t.Helper()
	r := withProbe(t)
	spec.ID, spec.Image, spec.Args = "box", probeName, []string{"serve"}
	if err := r.Start(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	awaitLog(t, r, "box", "ready")
	return r
}

func TestExec(t *testing.T) {
	r := serving(t, Spec{Env: []string{"HERE=yes"}})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var out, errOut bytes.Buffer
	code, err := r.Exec(ctx, "box", Exec{Args: []string{"/probe", "id", "env", "HERE", "env", "MORE", "complain", "oh", "status", "CapEff", "status", "Seccomp", "exit", "9"}, Env: []string{"MORE=too"}, Stdout: &out, Stderr: &errOut})
	if want := "id 65532 65532\nenv yes\nenv too\nCapEff: 0000000000000000\nSeccomp: 2\n"; err != nil || code != 9 || out.String() != want || errOut.String() != "oh\n" {
		t.Errorf("code %d, %v, said %q and %q", code, err, out.String(), errOut.String())
	}
	big := strings.Repeat("0123456789abcdef", 64<<10)
	out.Reset()
	code, err = r.Exec(ctx, "box", Exec{Args: []string{"/probe", "cat"}, Stdin: strings.NewReader(big), Stdout: &out})
	if err != nil || code != 0 || out.String() != big {
		t.Errorf("cat: code %d, %v, %d bytes of %d", code, err, out.Len(), len(big))
	}
	slow := &slowWriter{pause: 2 * time.Second}
	code, err = r.Exec(ctx, "box", Exec{Args: []string{"/probe", "cat"}, Stdin: strings.NewReader(big[:100<<10]), Stdout: slow})
	if err != nil || code != 0 || slow.Len() != 100<<10 {
		t.Errorf("cat to a slow reader: code %d, %v, %d bytes of %d", code, err, slow.Len(), 100<<10)
	}
	gone := errors.New("the reader is gone")
	if _, err = r.Exec(ctx, "box", Exec{Args: []string{"/probe", "say", "x"}, Stdout: &slowWriter{failed: gone}}); !errors.Is(err, gone) {
		t.Errorf("output that nobody took: %v", err)
	}
	out.Reset()
	code, err = r.Exec(ctx, "box", Exec{Args: []string{"/probe", "id", "cwd"}, User: "1000:7", Cwd: "/tmp", Stdout: &out})
	if err != nil || code != 0 || out.String() != "id 1000 7\n/tmp <nil>\n" {
		t.Errorf("code %d, %v, said %q", code, err, out.String())
	}
	for reason, e := range map[string]Exec{
		"no command":   {},
		"no such file": {Args: []string{"/absent"}},
		"is root":      {Args: []string{"/probe"}, User: "0"},
		"no such name": {Args: []string{"/probe"}, User: "web"},
	} {
		if _, err := r.Exec(ctx, "box", e); err == nil || !mentions(err, reason) {
			t.Errorf("%+v: %v, want %q", e, err, reason)
		}
	}
	if _, err := r.Exec(ctx, "absent", Exec{Args: []string{"/probe"}}); !errors.Is(err, ErrNotFound) {
		t.Errorf("in a container that is not there: %v", err)
	}
	short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	if _, err := r.Exec(short, "box", Exec{Args: []string{"/probe", "sleep", "60"}}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a deadline: %v", err)
	}
	if err := r.Stop(ctx, "box", time.Second); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Exec(ctx, "box", Exec{Args: []string{"/probe"}}); !errors.Is(err, ErrNotRunning) {
		t.Errorf("in a container that ended: %v", err)
	}
	if entries, err := os.ReadDir(filepath.Join(r.config.State, "fifo")); err != nil || len(entries) > 0 {
		t.Errorf("pipes are left: %v, %v", entries, err)
	}
}

// slowWriter pauses before it takes the first bytes.
type slowWriter struct {
	bytes.Buffer
	pause  time.Duration
	failed error
}

func (w *slowWriter) Write(b []byte) (int, error) {
	time.Sleep(w.pause)
	w.pause = 0
	if w.failed != nil {
		return 0, w.failed
	}
	return w.Buffer.Write(b)
}

func TestExecTerminal(t *testing.T) {
	r := serving(t, Spec{})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	resize := make(chan Size, 1)
	in, typed := io.Pipe()
	out, said := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		_, err := r.Exec(ctx, "box", Exec{Args: []string{"/probe", "say", "begin", "sleep", "1", "tty", "env", "TERM", "cat"}, TTY: true, Size: Size{Columns: 100, Rows: 30}, Resize: resize, Stdin: in, Stdout: said})
		said.Close()
		ended <- err
	}()
	resize <- Size{Columns: 132, Rows: 43}
	io.WriteString(typed, "typed\r")
	io.WriteString(typed, "\x04") // end of input, as a person types it
	text, _ := io.ReadAll(out)
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	want(t, strings.ReplaceAll(string(text), "\r", ""), "begin", "tty true 132 43", "env xterm", "typed")
}

// tarOf lists what a tar stream holds, as name: content.
func tarOf(t *testing.T, data []byte) map[string]string {
	t.Helper()
	got := map[string]string{}
	in := tar.NewReader(bytes.NewReader(data))
	for {
		header, err := in.Next()
		if err == io.EOF {
			return got
		} else if err != nil {
			t.Fatal(err)
		}
		content, _ := io.ReadAll(in)
		got[header.Name] = string(content) + header.Linkname
	}
}

func TestCopy(t *testing.T) {
	dir := t.TempDir()
	r := serving(t, Spec{Mounts: []Mount{{Source: filepath.Join(dir, "volume"), Target: "/volume", Volume: true}}})
	in := layer(t,
		file{name: "sub/", kind: tar.TypeDir, mode: 0o700},
		file{name: "sub/a", content: "one\n", mode: 0o4640},
		file{name: "/abs/../b", content: "two\n", uid: 55},
		file{name: "sub/link", link: "a", kind: tar.TypeSymlink},
		file{name: "sub/hard", link: "sub/a", kind: tar.TypeLink},
	)
	for range 2 { // the second time over what is there
		if err := r.CopyIn(t.Context(), "box", "/volume", bytes.NewReader(in)); err != nil {
			t.Fatal(err)
		}
	}
	var said bytes.Buffer
	if _, err := r.Exec(t.Context(), "box", Exec{Args: []string{"/probe", "read", "/volume/sub/link", "own", "/volume/b", "read", "/volume/sub/hard"}, Stdout: &said}); err != nil {
		t.Fatal(err)
	}
	want(t, said.String(), "read one <nil>", "own 65532 65532")
	var out bytes.Buffer
	if err := r.CopyOut(t.Context(), "box", "/volume", &out); err != nil {
		t.Fatal(err)
	}
	got := tarOf(t, out.Bytes())
	for name, content := range map[string]string{"volume/sub/a": "one\n", "volume/b": "two\n", "volume/sub/link": "a", "volume/sub/hard": "one\n"} {
		if got[name] != content {
			t.Errorf("%s is %q, want %q", name, got[name], content)
		}
	}
	out.Reset()
	if err := r.CopyOut(t.Context(), "box", "/data/mine", &out); err != nil {
		t.Fatal(err)
	}
	header, err := tar.NewReader(&out).Next()
	if err != nil || header.Name != "mine" || header.Uid != 1000 || header.Gid != 1001 {
		t.Errorf("%+v, %v, want the container's owners", header, err)
	}
	for name, is := range map[string]error{"/absent": fs.ErrNotExist, "/volume/b/c": nil, "/proc/1/exe/x": nil} {
		if err := r.CopyOut(t.Context(), "box", name, io.Discard); err == nil || is != nil && !errors.Is(err, is) {
			t.Errorf("copy %s out: %v", name, err)
		}
	}
	for reason, target := range map[string]string{"read-only": "/", "may not write": "/data", "no such file": "/absent"} {
		if err := r.CopyIn(t.Context(), "box", target, bytes.NewReader(in)); err == nil || reason != "may not write" && !strings.Contains(err.Error(), reason) {
			t.Errorf("copy into %s: %v, want %q", target, err, reason)
		}
	}
	if err := r.CopyIn(t.Context(), "box", "/tmp", bytes.NewReader(in[:700])); err == nil || !strings.Contains(err.Error(), "cut short") {
		t.Errorf("a cut stream: %v", err)
	}
}

// TestCopyStaysInside sets traps for both directions.
func TestCopyStaysInside(t *testing.T) {
	dir := t.TempDir()
	secret := filepath.Join(dir, "secret")
	if err := os.WriteFile(secret, []byte("the node's\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	volume := filepath.Join(dir, "volume")
	r := serving(t, Spec{Mounts: []Mount{{Source: volume, Target: "/volume", Volume: true}}})
	traps := layer(t,
		file{name: "up", link: "../../../../../../.." + dir, kind: tar.TypeSymlink},
		file{name: "abs", link: dir, kind: tar.TypeSymlink},
		file{name: "magic", link: "/proc/self/root" + dir, kind: tar.TypeSymlink},
		file{name: "etc", link: "/etc/passwd", kind: tar.TypeSymlink},
	)
	if err := r.CopyIn(t.Context(), "box", "/volume", bytes.NewReader(traps)); err != nil {
		t.Fatal(err)
	}
	for _, trap := range []string{"up", "abs", "magic"} {
		if err := r.CopyOut(t.Context(), "box", "/volume/"+trap+"/secret", io.Discard); err == nil {
			t.Errorf("%s leads out of the container", trap)
		}
		if err := r.CopyIn(t.Context(), "box", "/volume", bytes.NewReader(layer(t, file{name: trap + "/planted", content: "x"}))); err == nil {
			t.Errorf("%s leads into the node", trap)
		}
	}
	// A link resolves as in the container: to its /etc/passwd, not the node's.
	var out bytes.Buffer
	if err := r.CopyOut(t.Context(), "box", "/volume/etc", &out); err != nil {
		t.Fatal(err)
	}
	if got := tarOf(t, out.Bytes())["etc"]; !strings.Contains(got, "web:x:1000") || strings.Contains(got, "daemon") {
		t.Errorf("the link gives %q", got)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 2 {
		t.Errorf("files were planted: %v", entries)
	}
}
