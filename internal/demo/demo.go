package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"oscine.dev/oscine/internal/client"
	"oscine.dev/oscine/internal/machine"
	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/update/repository"
)

// What the demo does by default.
const (
	Pictures = 500
	Seed     = 2026
	// Name is the machine's, the context's and the node's.
	Name = "oscine-demo"
	// Model is the name under which the digit reader is served.
	Model = "digits"
)

// Options say how to run the demo. All fields but Tools have sensible zeros.
type Options struct {
	Source string // folder in Oscine's checkout; the current one
	Dir    string // folder for what is built; Source/out
	Report string // file for the figures; Dir/demo.json
	Arch   string // of the machine; this one's
	Accel  string // kvm or tcg; kvm where it really boots
	Direct bool   // start the kernel without firmware and boot loader
	Keep   bool   // leave the machine running
	Chat   bool   // serve a language model too, and ask it
	// Upgrade also takes the machine to a second release and to a broken one; not
	// with Direct, where nothing would start another version.
	Upgrade bool
	Count   int       // pictures; Pictures
	Out     io.Writer // a line for each step, then the summary
	// Wait shows a text, and for how long already, until done; tell changes the
	// text. It is nil where no terminal shows that.
	Wait  func(text string) (tell func(text string), done func())
	Tools Tools
}

// Tools are the commands that the demo uses as a person would.
type Tools struct {
	// Generate makes keys, a Machine manifest DIR/NAME.yaml and a context in
	// the client configuration CONFIG for a node at address.
	Generate func(config, dir, name, address string) error
	// Connect returns a client of the context in the client configuration.
	Connect func(config, name string) (*client.Client, error)
	// Install installs a pack from a file.
	Install func(ctx context.Context, node *client.Client, file string) error
	// Serve serves a model file under a name and returns the model's status
	// once it answers.
	Serve func(ctx context.Context, node *client.Client, file, name string) (*object.ModelStatus, error)
	// ServeLanguage does so with a language model, for one request at a time.
	ServeLanguage func(ctx context.Context, node *client.Client, file, name string) (*object.ModelStatus, error)
	// Upgrade takes the node to a version of a source of releases, whose checks
	// get until deadline, and returns why the node went back, empty where it did
	// not.
	Upgrade func(ctx context.Context, node *client.Client, source, version string, deadline time.Duration) (reason string, err error)
}

func (o *Options) fill() {
	set := func(s *string, value string) {
		if *s == "" {
			*s = value
		}
	}
	set(&o.Source, ".")
	set(&o.Dir, filepath.Join(o.Source, "out"))
	set(&o.Report, filepath.Join(o.Dir, "demo.json"))
	set(&o.Arch, runtime.GOARCH)
	if o.Count == 0 {
		o.Count = Pictures
	}
	if o.Out == nil {
		o.Out = io.Discard
	}
}

// run is one run of the demo.
type run struct {
	Options
	report  Report
	log     stepLog // of the step at work
	image   string
	pack    string
	llama   string // the pack of llama.cpp
	machine *machine.Machine
	node    *client.Client
	inputs  []input

	releases *repository.Repository
	source   string // where the machine finds the releases
}

// step is one thing that the demo does; its text says what came of it.
type step struct {
	name string
	do   func(context.Context) (string, error)
	logs func(*run) string // what to show when it fails; nil: what it wrote itself
}

// Run runs the demo. An error names the step that failed; its log's end has
// been printed, and nothing is left running.
func Run(ctx context.Context, o Options) (err error) {
	o.fill()
	r := &run{Options: o}
	if m, err := machine.Open("", Name); err == nil {
		return fmt.Errorf("the machine %s of an earlier demo is there (it was kept): oscine machine delete --force %s, then begin again", m.Name(), Name)
	} else if !errors.Is(err, machine.ErrNotFound) {
		return err
	}
	// What an earlier run left: its keys open nothing any more.
	if err := os.RemoveAll(r.dir()); err != nil {
		return err
	}
	if err := os.MkdirAll(r.dir(), 0o755); err != nil {
		return err
	}
	defer func() {
		if r.machine != nil && (err != nil || !r.Keep) {
			if cleanup := r.machine.Delete(true); cleanup != nil {
				err = errors.Join(err, fmt.Errorf("remove the machine: %w", cleanup))
			}
		}
	}()
	steps := []step{
		{"build the image", r.buildImage, nil},
		{"build the engine pack", r.buildPack, nil},
		{"draw the pictures", r.drawPictures, nil},
		{"start the machine", r.startMachine, (*run).console},
		{"wait for its API", r.awaitAPI, (*run).console},
		{"install the pack", r.installPack, (*run).nodeLogs},
		{"serve the digit reader", r.serveModel, (*run).nodeLogs},
		{"read the digits", r.readDigits, (*run).nodeLogs},
		{"ask the node", r.askNode, (*run).nodeLogs},
	}
	if r.Chat {
		steps = append(steps, r.chatSteps()...)
	}
	if r.Upgrade && !r.Direct {
		steps = append(steps, []step{
			{"make two more releases", r.makeReleases, nil},
			{"upgrade to one", r.upgrade, (*run).nodeLogs},
			{"upgrade to the broken one", r.upgradeToBroken, (*run).nodeLogs},
		}...)
	}
	began := time.Now()
	for i, s := range steps {
		if err := r.take(ctx, i+1, len(steps), s); err != nil {
			return err
		}
	}
	r.report.Seconds = seconds(time.Since(began))
	if err := r.writeReport(); err != nil {
		return err
	}
	r.summary()
	if r.report.Accuracy < 0.97 {
		return fmt.Errorf("accuracy is %.1f %%, which is less than the 97 %% that this model promises", 100*r.report.Accuracy)
	}
	return nil
}

// dir holds the demo's own files: keys, client configuration, some pictures.
func (r *run) dir() string    { return filepath.Join(r.Dir, "demo") }
func (r *run) config() string { return filepath.Join(r.dir(), "config") }

func (r *run) take(ctx context.Context, n, of int, s step) error {
	title := fmt.Sprintf("[%d/%d] %-26s", n, of, s.name)
	r.log = stepLog{}
	began := time.Now()
	var text string
	var err error
	if r.Wait == nil {
		fmt.Fprint(r.Out, title)
		text, err = s.do(ctx)
	} else {
		tell, done := r.Wait(title)
		r.log.wrote = func(line string) { tell(title + line) }
		text, err = s.do(ctx)
		done()
		fmt.Fprint(r.Out, title)
	}
	if err == nil {
		fmt.Fprintf(r.Out, "%7.1f s  %s\n", time.Since(began).Seconds(), text)
		return nil
	}
	fmt.Fprintf(r.Out, "  FAILED after %.1f s\n", time.Since(began).Seconds())
	if ctx.Err() != nil {
		return ctx.Err()
	}
	log := r.log.text.String()
	if s.logs != nil {
		log += s.logs(r)
	}
	if log = tail(log, 30); log != "" {
		fmt.Fprintf(r.Out, "the end of its log:\n%s\n", log)
	}
	return fmt.Errorf("step %d, %s: %w", n, s.name, err)
}

// stepLog keeps what a step writes, and tells each line.
type stepLog struct {
	text  strings.Builder
	wrote func(line string) // may be nil
}

// Write keeps text of whole lines.
func (l *stepLog) Write(text []byte) (int, error) {
	if l.wrote != nil {
		lines := strings.Split(strings.TrimSpace(string(text)), "\n")
		l.wrote(lines[len(lines)-1])
	}
	return l.text.Write(text)
}

// tail is the last lines of a log, without what a terminal would obey.
func tail(log string, lines int) string {
	log = strings.Map(func(c rune) rune {
		if c == '\n' || c == '\t' || c >= ' ' && c != 0x7f {
			return c
		}
		return -1
	}, log)
	all := strings.Split(strings.TrimRight(log, "\n \t"), "\n")
	kept := all[max(0, len(all)-lines):]
	for i := range kept {
		kept[i] = "    " + kept[i]
	}
	return strings.TrimRight(strings.Join(kept, "\n"), " ")
}

func (r *run) writeReport() error {
	text, err := json.MarshalIndent(r.report, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(r.Report), 0o755); err != nil {
		return err
	}
	return os.WriteFile(r.Report, append(text, '\n'), 0o644)
}

// seconds rounds to milliseconds.
func seconds(d time.Duration) float64 { return float64(d.Milliseconds()) / 1000 }
