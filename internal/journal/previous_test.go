package journal

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// begin marks the n-th run.
func begin(t *testing.T, w *Writer, n int) {
	t.Helper()
	if err := w.Begin(noon.Add(time.Duration(n) * time.Second)); err != nil {
		t.Fatal(err)
	}
}

func TestPrevious(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.log")
	w := open(t, path, 0)
	previous := func() (string, error) {
		var got []string
		err := Read(t.Context(), path, Query{Previous: true}, func(line Line) error { got = append(got, line.Text); return nil })
		return strings.Join(got, " "), err
	}
	begin(t, w, 1)
	add(t, w, "a1", "a2")
	if got, err := previous(); !errors.Is(err, ErrNoPrevious) {
		t.Errorf("with one run: %q, %v", got, err)
	}
	begin(t, w, 2)
	if got, err := previous(); got != "a1 a2" || err != nil {
		t.Errorf("the second has said nothing yet: %q, %v", got, err)
	}
	add(t, w, "b1", "b2")
	begin(t, w, 3)
	add(t, w, "c1")
	if got, err := previous(); got != "b1 b2" || err != nil {
		t.Errorf("of three: %q, %v", got, err)
	}
	if got := texts(t, path, Query{Previous: true, Tail: 1}); strings.Join(got, " ") != "b2" {
		t.Errorf("its tail: %q", got)
	}
	if got := texts(t, path, Query{}); strings.Join(got, " ") != "a1 a2 b1 b2 c1" {
		t.Errorf("marks are shown: %q", got)
	}
}

// A run that has lost its beginning to the journal's bound is shown from what is
// left of it.
func TestPreviousAfterRotation(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.log")
	w := open(t, path, minBytes)
	begin(t, w, 1)
	long := strings.Repeat("x", 1000)
	for range 400 {
		add(t, w, long)
	}
	begin(t, w, 2)
	add(t, w, "new")
	got := texts(t, path, Query{Previous: true})
	if len(got) == 0 || len(got) >= 400 || got[0] != long {
		t.Errorf("%d lines of the first run", len(got))
	}
}
