package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestStepTellsItsLog(t *testing.T) {
	var out bytes.Buffer
	var told []string
	r := &run{Options: Options{Out: &out, Wait: func(text string) (func(string), func()) {
		told = append(told, text)
		return func(text string) { told = append(told, text) }, func() { told = append(told, "done") }
	}}}
	work := func(err error) func(context.Context) (string, error) {
		return func(context.Context) (string, error) {
			fmt.Fprintf(&r.log, "fetch 2 packages\nfetched 1.0 of 2.0 MB\n")
			return "built", err
		}
	}
	title := fmt.Sprintf("[1/2] %-26s", "build")
	if err := r.take(t.Context(), 1, 2, step{"build", work(nil), nil}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{title, title + "fetched 1.0 of 2.0 MB", "done"}, told); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
	if got := out.String(); !strings.HasPrefix(got, title) || strings.Count(got, "build ") != 1 || !strings.HasSuffix(got, "s  built\n") {
		t.Errorf("got %q", got)
	}

	out.Reset()
	failure := errors.New("no mirror")
	if err := r.take(t.Context(), 1, 2, step{"build", work(failure), nil}); !errors.Is(err, failure) {
		t.Errorf("got error %v", err)
	}
	if got := out.String(); !strings.Contains(got, "FAILED") || !strings.Contains(got, "    fetch 2 packages\n    fetched 1.0") {
		t.Errorf("a failure prints %q", got)
	}
}
