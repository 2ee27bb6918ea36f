package cli

import (
	"fmt"
	"io"
	"sync"
	"time"

	"golang.org/x/term"

	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/printable"
)

// patience is how long a command waits before it says for what.
const patience = 2 * time.Second

// waiting shows on one line of a terminal what a command waits for, and for how
// long, once that takes longer than patience. Elsewhere it is silent.
type waiting struct {
	w    io.Writer
	live bool
	end  chan struct{}
	over sync.WaitGroup

	mu    sync.Mutex
	text  string
	began time.Time
	shown bool
}

func newWaiting(env *Env, text string) *waiting {
	return startWaiting(env.Err, isTerminal(env.Err), text)
}

func startWaiting(out io.Writer, live bool, text string) *waiting {
	w := &waiting{w: out, live: live, end: make(chan struct{}), text: text, began: time.Now()}
	if live {
		w.over.Go(w.follow)
	}
	return w
}

func (w *waiting) follow() {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-w.end:
			return
		case <-tick.C:
		}
		w.mu.Lock()
		if took := time.Since(w.began); took >= patience {
			w.shown = true
			fmt.Fprintf(w.w, "\r\033[K%s  %s", w.fitting(), took.Round(time.Second))
		}
		w.mu.Unlock()
	}
}

// fitting is the text, cut where the line would not fit the terminal.
func (w *waiting) fitting() string {
	text := printable.Text(w.text)
	if f, ok := terminalOf(w.w); ok {
		if width, _, err := term.GetSize(int(f.Fd())); err == nil {
			return cutToFit(text, width)
		}
	}
	return text
}

// cutToFit leaves room for a duration behind the text: of a line that wraps, only
// the last part could be taken away again. A width of 0 is unknown.
func cutToFit(text string, width int) string {
	const duration = len("  1h59m59s") + 1
	if runes := []rune(text); width > duration && len(runes) > width-duration {
		return string(runes[:width-duration])
	}
	return text
}

// waitsFor says where an object is that is waited for.
func waitsFor(key object.Key, st *object.Observed) string {
	text := objectName(string(key.Kind), key.Name) + " " + string(st.Phase)
	if st.Message != "" {
		text += ": " + st.Message
	}
	return text
}

// tell says what is waited for now.
func (w *waiting) tell(text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.text = text
}

// Write passes lines of the work on, and has the time begin again: w is the log of
// work that says itself what it is at.
func (w *waiting) Write(lines []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.shown {
		fmt.Fprint(w.w, "\r\033[K")
		w.shown = false
	}
	w.began = time.Now()
	return w.w.Write(lines)
}

// workLog is where work writes what it is at, which a terminal shows for how long already;
// nil where nothing is to be shown. The caller calls done when the work has ended.
func workLog(env *Env, quiet bool) (log io.Writer, done func()) {
	if quiet {
		return nil, func() {}
	}
	w := newWaiting(env, "...")
	return w, w.done
}

// done takes the line away.
func (w *waiting) done() {
	close(w.end)
	w.over.Wait()
	if w.shown {
		fmt.Fprint(w.w, "\r\033[K")
	}
}
