package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"oscine.dev/oscine/internal/hardware"
	"oscine.dev/oscine/internal/hardware/render"
	"oscine.dev/oscine/internal/object"
)

func newTopCommand(env *Env) *cobra.Command {
	var root string
	var every time.Duration
	var once bool
	c := &cobra.Command{
		Use:   "top",
		Short: "Show a machine live: load of cores, memory and accelerators, and their health",
		Long: `Show a machine live: each CPU as one bar within its package, the memory of each
node, load, memory, temperature and health of each accelerator. q ends it.

With a context the machine is the node's. Without one, or with --root /, it is
this one. oscine top workloads and oscine top models show what those use.`,
		Args: exactArgs(0, "no argument"),
		RunE: func(c *cobra.Command, _ []string) error {
			if every < hardware.MinLoadInterval {
				return usageError{fmt.Errorf("--every %s is too often: %s at least", every, hardware.MinLoadInterval)}
			}
			name, watch, err := watching(env, root)
			if err != nil {
				return err
			}
			out, terminal := terminalOf(env.Out)
			if once || !terminal {
				return topOnce(c.Context(), env.Out, watch, every)
			}
			return topLive(c.Context(), env, &topScreen{out: out, name: name}, watch, every)
		},
	}
	c.AddCommand(newTopObjectsCommand(env, object.KindWorkload, "workloads"), newTopObjectsCommand(env, object.KindModel, "models"))
	c.Flags().StringVar(&root, "root", "", "the machine's root; / is this machine")
	c.Flags().DurationVar(&every, "every", time.Second, "how often to look")
	c.Flags().BoolVar(&once, "once", false, "print one picture and end")
	return c
}

// errSeen ends a watch that has shown what was asked for.
var errSeen = errors.New("seen")

// topOnce measures for one interval and prints that.
func topOnce(ctx context.Context, w io.Writer, watch hardwareWatch, every time.Duration) error {
	var m *hardware.Machine
	err := watch(ctx, every, func(news hardware.News) error {
		if news.Machine != nil {
			m = news.Machine
		}
		if news.Load == nil || m == nil {
			return nil
		}
		if err := render.Top(w, m, *news.Load, render.TopOptions{Width: 120}); err != nil {
			return err
		}
		return errSeen
	})
	if errors.Is(err, errSeen) {
		return nil
	}
	return err
}

// topLive redraws a terminal until q, an interrupt or an error.
func topLive(ctx context.Context, env *Env, screen *topScreen, watch hardwareWatch, every time.Duration) (err error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	if in, ok := terminalOf(env.In); ok {
		state, err := term.MakeRaw(int(in.Fd()))
		if err != nil {
			return fmt.Errorf("set up the terminal: %w", err)
		}
		defer func() { err = errors.Join(err, term.Restore(int(in.Fd()), state)) }()
		go quitKey(in, stop)
	}
	fmt.Fprint(screen.out, "\x1b[?1049h\x1b[?25l")       // other screen, no cursor
	defer fmt.Fprint(screen.out, "\x1b[?25h\x1b[?1049l") // and back
	return watch(ctx, every, screen.take)
}

// quitKey ends on q, escape or an interrupt that a raw terminal hands over as
// a character.
func quitKey(in io.Reader, stop func()) {
	key := make([]byte, 1)
	for {
		if _, err := in.Read(key); err != nil || key[0] == 'q' || key[0] == 3 || key[0] == 27 {
			stop()
			return
		}
	}
}

// topScreen paints one machine on a terminal.
type topScreen struct {
	out  *os.File
	name string
	m    *hardware.Machine
	last hardware.Change // the newest change that someone should look at
	when time.Time
	busy []float64 // of the pictures so far, the last maxBusy
}

// maxBusy bounds what top remembers: no terminal is wider.
const maxBusy = 1000

func (s *topScreen) take(news hardware.News) error {
	if news.Machine != nil {
		s.m = news.Machine
	}
	for _, c := range news.Changes {
		s.last, s.when = c, time.Now()
	}
	if news.Load == nil || s.m == nil {
		return nil
	}
	return s.draw(*news.Load)
}

// draw paints a frame over the last one.
func (s *topScreen) draw(l hardware.Load) error {
	width, height, err := term.GetSize(int(s.out.Fd()))
	if err != nil || width <= 0 || height <= 0 { // a terminal that does not tell
		width, height = 100, 40
	}
	s.busy = append(s.busy[max(0, len(s.busy)-maxBusy+1):], render.Busy(l))
	frame := &screen{height: height - 1}
	fmt.Fprintf(frame, "%.*s\n", width, fmt.Sprintf("%s  %s  q ends", s.name, time.Now().Format(time.TimeOnly)))
	room := height - 2
	if !s.when.IsZero() {
		room--
	}
	if err := render.Top(frame, s.m, l, render.TopOptions{Width: width, Height: room, Color: os.Getenv("NO_COLOR") == "", Busy: s.busy}); err != nil {
		return err
	}
	if !s.when.IsZero() {
		fmt.Fprintf(frame, "%.*s\n", width, fmt.Sprintf("%s  %s  %s", s.when.Format(time.TimeOnly), s.last.Device, s.last.What))
	}
	_, err = fmt.Fprintf(s.out, "\x1b[H%s\x1b[J", frame.text)
	return err
}

// screen collects lines up to the terminal's height, each with the rest of
// its line wiped.
type screen struct {
	text   []byte
	height int
}

func (s *screen) Write(p []byte) (int, error) {
	for _, b := range p {
		if s.height <= 0 {
			break
		}
		if b == '\n' {
			s.text = append(s.text, "\x1b[K\r\n"...)
			s.height--
			continue
		}
		s.text = append(s.text, b)
	}
	return len(p), nil
}
