package container

import (
	"strings"
	"testing"
	"time"
)

func TestRun(t *testing.T) {
	r := withProbe(t)
	t.Logf("missing here: %s", strings.Join(r.Missing(), "\n"))
	got, status := output(t, r, Spec{ID: "first", Args: []string{"say", "hello", "complain", "oh", "id", "exit", "3"}})
	if want := "hello\n! oh\nid 65532 65532\n"; !sameLines(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if status.State != Exited || status.ExitCode != 3 || status.OOMKilled || status.StartedAt.IsZero() || status.ExitedAt.Before(status.StartedAt) {
		t.Errorf("status %+v", status)
	}
}

// sameLines compares without order: two streams have none between them.
func sameLines(a, b string) bool {
	count := map[string]int{}
	for line := range strings.SplitSeq(a, "\n") {
		count[line]++
	}
	for line := range strings.SplitSeq(b, "\n") {
		count[line]--
	}
	for _, n := range count {
		if n != 0 {
			return false
		}
	}
	return true
}

func TestStop(t *testing.T) {
	r := withProbe(t)
	if err := r.Start(t.Context(), Spec{ID: "polite", Image: probeName, Args: []string{"serve", "exit", "7"}}); err != nil {
		t.Fatal(err)
	}
	awaitLog(t, r, "polite", "ready")
	begin := time.Now()
	if err := r.Stop(t.Context(), "polite", 20*time.Second); err != nil {
		t.Fatal(err)
	}
	status, err := r.Status(t.Context(), "polite")
	if err != nil || status.ExitCode != 7 || time.Since(begin) > 10*time.Second {
		t.Errorf("%+v, %v after %v", status, err, time.Since(begin))
	}
}
