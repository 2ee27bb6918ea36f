package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"oscine.dev/oscine/internal/hardware"
)

func newTopCommand(env *Env) *cobra.Command {
	var root string
	var every time.Duration
	var once bool
	c := &cobra.Command{
		Use:   "top",
		Short: "Show this machine live: load of cores, memory and accelerators, and their health",
		Long: `Show this machine live: each CPU as one bar within its package, the memory of
each node, load, memory, temperature and health of each accelerator. q ends it.`,
		Args: exactArgs(0, "no argument"),
		RunE: func(c *cobra.Command, _ []string) error {
			if every < 100*time.Millisecond {
				return usageError{fmt.Errorf("--every %s is too often: 100ms at least", every)}
			}
			out, terminal := env.Out.(*os.File)
			if once || !terminal || !term.IsTerminal(int(out.Fd())) {
				return topOnce(c.Context(), env.Out, root, every)
			}
			return topLive(c.Context(), env, out, root, every)
		},
	}
	c.Flags().StringVar(&root, "root", "/", "the machine's root, / for this one")
	c.Flags().DurationVar(&every, "every", time.Second, "how often to look")
	c.Flags().BoolVar(&once, "once", false, "print one picture and end")
	return c
}

// topOnce measures for one interval and prints that.
func topOnce(ctx context.Context, w io.Writer, root string, every time.Duration) error {
	m, err := hardware.Discover(root)
	if err != nil {
		return err
	}
	s, err := hardware.NewSampler(root)
	if err != nil {
		return err
	}
	defer s.Close()
	s.Sample(m)
	select {
	case <-time.After(every):
	case <-ctx.Done():
	}
	return hardware.WriteTop(w, m, s.Sample(m), 100)
}

// topLive redraws a terminal until q, an interrupt or an error.
func topLive(ctx context.Context, env *Env, out *os.File, root string, every time.Duration) (err error) {
	s, err := hardware.NewSampler(root)
	if err != nil {
		return err
	}
	defer s.Close()
	if in, ok := env.In.(*os.File); ok && term.IsTerminal(int(in.Fd())) {
		state, err := term.MakeRaw(int(in.Fd()))
		if err != nil {
			return fmt.Errorf("set up the terminal: %w", err)
		}
		defer func() { err = errors.Join(err, term.Restore(int(in.Fd()), state)) }()
		var stop context.CancelFunc
		ctx, stop = context.WithCancel(ctx)
		defer stop()
		go quitKey(in, stop)
	}
	fmt.Fprint(out, "\x1b[?1049h\x1b[?25l")       // other screen, no cursor
	defer fmt.Fprint(out, "\x1b[?25h\x1b[?1049l") // and back
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var latest latestMap
	go latest.askNVIDIA(ctx)
	watched := make(chan error, 1)
	go func() { watched <- hardware.Watch(ctx, root, 5*time.Second, latest.set) }()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return <-watched
		case err := <-watched:
			return err
		case <-tick.C:
			if m := latest.get(); m != nil {
				load := s.Sample(m)
				load.Add(latest.loads())
				if err := drawTop(out, m, load); err != nil {
					return err
				}
			}
		}
	}
}

// latestMap hands the newest map from the watcher to the painter.
type latestMap struct {
	mu     sync.Mutex
	m      *hardware.Machine
	nvidia map[string]hardware.DeviceLoad
}

// askNVIDIA asks NVIDIA's program for the load of its GPUs every two seconds,
// where there is one: the driver shows nothing of it elsewhere.
func (l *latestMap) askNVIDIA(ctx context.Context) {
	program, err := exec.LookPath("nvidia-smi")
	if err != nil {
		return
	}
	for ctx.Err() == nil {
		if m := l.get(); m != nil {
			if own, err := m.Clone(); err == nil {
				loads, err := hardware.AskNVIDIA(ctx, own, program)
				if err == nil {
					l.mu.Lock()
					l.nvidia = loads
					l.mu.Unlock()
				}
			}
		}
		select {
		case <-time.After(2 * time.Second):
		case <-ctx.Done():
		}
	}
}

func (l *latestMap) loads() map[string]hardware.DeviceLoad {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.nvidia
}

func (l *latestMap) set(m *hardware.Machine, _ []hardware.Change) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.m = m
}

func (l *latestMap) get() *hardware.Machine {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.m
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

// drawTop paints a frame over the last one.
func drawTop(out *os.File, m *hardware.Machine, l hardware.Load) error {
	width, height, err := term.GetSize(int(out.Fd()))
	if err != nil || width <= 0 || height <= 0 { // a terminal that does not tell
		width, height = 100, 40
	}
	frame := &screen{height: height - 1}
	if err := hardware.WriteTop(frame, m, l, width); err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "\x1b[H%s\x1b[J", frame.text)
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
