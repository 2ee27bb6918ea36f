package cli

import (
	"bytes"
	"testing"
	"testing/synctest"
	"time"
)

func TestWaiting(t *testing.T) {
	for _, c := range []struct {
		name string
		live bool
		took time.Duration
		want string
	}{
		{"what is quick stays silent", true, 1500 * time.Millisecond, ""},
		{"what is slow is told", true, 3500 * time.Millisecond, "\r\033[Kpull \\x1b[2J  2s\r\033[Kpull \\x1b[2J  3s\r\033[K"},
		{"without a terminal nothing is", false, time.Minute, ""},
	} {
		synctest.Test(t, func(t *testing.T) {
			var out bytes.Buffer
			w := startWaiting(&out, c.live, "web")
			w.tell("pull \x1b[2J")
			time.Sleep(c.took)
			w.done()
			if out.String() != c.want {
				t.Errorf("%s: got %q, want %q", c.name, out.String(), c.want)
			}
		})
	}
}

func TestWaitingPassesLinesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		w := startWaiting(&out, true, "...")
		for _, line := range []string{"fetch\n", "build\n"} {
			if n, err := w.Write([]byte(line)); n != len(line) || err != nil {
				t.Errorf("write %q: got %d, %v", line, n, err)
			}
			time.Sleep(2500 * time.Millisecond)
		}
		w.done()
		if got, want := out.String(), "fetch\n\r\033[K...  2s\r\033[Kbuild\n\r\033[K...  3s\r\033[K"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

func TestCutToFit(t *testing.T) {
	for _, c := range []struct {
		text  string
		width int
		want  string
	}{
		{"fetch é", 18, "fetch é"},
		{"fetch éé", 18, "fetch é"},
		{"fetch", 0, "fetch"},
		{"fetch", 5, "fetch"},
	} {
		if got := cutToFit(c.text, c.width); got != c.want {
			t.Errorf("%q in %d columns: got %q, want %q", c.text, c.width, got, c.want)
		}
	}
}
