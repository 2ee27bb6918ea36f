package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"syscall"
	"time"

	"oscine.dev/oscine/internal/linux"
	"oscine.dev/oscine/internal/pack"
	"oscine.dev/oscine/internal/serve/engine"
	"oscine.dev/oscine/internal/serve/oip"
)

func main() {
	runGuest()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "cost:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out, progress io.Writer) error {
	if len(args) > 0 {
		switch args[0] { // this program as a server under measurement
		case "echo":
			if len(args) == 2 {
				return echo(args[1])
			}
		case "raw":
			return raw()
		case "front":
			if len(args) == 3 {
				return frontServer(args[1], args[2])
			}
		}
	}
	flags := flag.NewFlagSet("cost", flag.ContinueOnError)
	rounds := flags.Int("rounds", 7, "measurements of each figure, of which the median counts")
	turn := flags.Duration("turn", 250*time.Millisecond, "time of one measurement")
	alone := flags.Bool("no-peers", false, "leave out other model servers, which are installed at the first time")
	instructions := flags.Bool("instructions", false, "count instructions in a guest, in place of processor time")
	engines := flags.Bool("engines", false, "measure every engine, and the other servers, in place of the ways to a model")
	only := flags.String("only", "", "measure only what matches this `expression`, and print only the µs")
	file := flags.String("o", "", "write the figures to this file")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *rounds < 1 || *turn < time.Millisecond {
		return errors.New("needs -rounds of at least 1 and a -turn of at least 1ms")
	}
	wanted, err := regexp.Compile(*only)
	if err != nil {
		return err
	}
	if *instructions {
		return countInstructions(ctx, *rounds, out, progress)
	}
	dir, err := os.MkdirTemp("", "oscine-cost-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b := &bench{ctx: ctx, dir: dir, progress: progress, rounds: *rounds, turn: *turn, figures: figures{}}
	defer b.stop()
	p, err := buildPrograms(ctx, dir, progress)
	if err != nil {
		return err
	}
	if p.missing != nil {
		b.absent = append(b.absent, fmt.Sprintf("fasthttp echo: %v", p.missing))
	}
	if err := b.startAll(p, smallName, digitsName, largeName); err != nil {
		return err
	}
	if err := b.coldStarts(smallName, digitsName, largeName); err != nil {
		return err
	}
	if err := errors.Join(b.addOther(smallName), b.addMany()); err != nil {
		return err
	}
	if *engines {
		b.targets = slices.DeleteFunc(b.targets, func(t target) bool { return !b.ofPeers(t.name) })
		if err := b.startEngines(); err != nil {
			return err
		}
	}
	if !*alone {
		b.startPeers()
	}
	b.targets = slices.DeleteFunc(b.targets, func(t target) bool { return !wanted.MatchString(t.name) })
	if err := b.measureAll(); err != nil {
		return err
	}
	if *only != "" {
		for _, t := range b.targets {
			fmt.Fprintf(out, "%s\t%.1f\n", t.name, b.figures[t.name])
		}
		return nil
	}
	if *engines {
		b.printEngines(out)
		b.printPeers(out)
	} else {
		if err := b.tenModels(); err != nil {
			return err
		}
		b.print(out)
	}
	if *file == "" {
		return nil
	}
	text, err := json.MarshalIndent(b.figures, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(*file, append(text, '\n'), 0o644)
}

// The models: one that costs next to nothing, one of about 40 µs, one of some
// hundred.
const (
	smallName  = "small"
	digitsName = "digits"
	largeName  = "large"
	rowsName   = "rows" // the small one, asked with many rows
	digitsFile = "models/digits/digits.onnx"

	onnxName = "onnxruntime"
)

// bench is one run of all measurements.
type bench struct {
	ctx      context.Context
	dir      string
	progress io.Writer
	rounds   int
	turn     time.Duration

	models  map[string]subject
	front   *process
	running []*process
	targets []target
	figures figures
	absent  []string // what could not be measured, and why
}

// target is one thing that is measured, in rounds with the others.
type target struct {
	name string
	of   *process
	run  func(n int) error
	rows int // inferences of one turn of run; 0 means 1
}

func (b *bench) stop() {
	for _, p := range b.running {
		p.stop()
	}
}

func (b *bench) start(command ...string) (*process, error) {
	p, err := start(b.ctx, command...)
	if err == nil {
		b.running = append(b.running, p)
	}
	return p, err
}

func (b *bench) say(format string, a ...any) { fmt.Fprintf(b.progress, "cost: "+format+"\n", a...) }

// programs are what is measured besides this one.
type programs struct {
	worker, library string
	fasthttp        string // "" where it could not be built
	missing         error  // why
}

// buildPrograms builds them, in the source tree.
func buildPrograms(ctx context.Context, dir string, progress io.Writer) (p programs, err error) {
	if p.library, err = libraryOf(ctx, onnxName, progress); err != nil {
		return p, err
	}
	p.worker = filepath.Join(dir, "oscine-engine")
	build := exec.CommandContext(ctx, "go", "build", "-o", p.worker, "./cmd/oscine-engine")
	build.Env, build.Stderr = append(os.Environ(), "CGO_ENABLED=0"), progress
	if err := build.Run(); err != nil {
		return p, fmt.Errorf("build the worker, in the source tree: %w", err)
	}
	p.fasthttp, p.missing = buildFasthttp(ctx, dir)
	return p, nil
}

// startAll starts the servers and connects a client to each.
func (b *bench) startAll(p programs, names ...string) error {
	b.models = map[string]subject{}
	for _, name := range names {
		b.models[name] = subject{engine: onnxName, library: p.library, file: filepath.Join(b.dir, name+".onnx")}
		var err error
		switch name {
		case digitsName:
			b.models[name] = subject{engine: onnxName, library: p.library, file: digitsFile}
		case largeName:
			err = os.WriteFile(b.models[name].file, mlp(768, 768, 768, 768, 768), 0o600)
		default:
			err = os.WriteFile(b.models[name].file, mlp(), 0o600)
		}
		if err != nil {
			return err
		}
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	socket := filepath.Join(b.dir, "echo.sock")
	echo, err := b.start(self, "echo", socket)
	if err != nil {
		return err
	}
	engine, err := b.start(self, "raw")
	if err != nil {
		return err
	}
	if b.front, err = b.start(self, "front", p.worker, b.dir); err != nil {
		return err
	}
	for _, name := range names {
		b.add(target{rawFigure(name), engine, asking(engine, "raw "+b.models[name].String()+" 1"), 1})
	}
	if slices.Contains(names, largeName) {
		for _, rows := range batches() {
			b.add(target{batchFigure(rows), engine, asking(engine, fmt.Sprintf("raw %s %d", b.models[largeName], rows)), rows})
		}
	}
	if p.fasthttp != "" {
		other, err := b.start(p.fasthttp)
		if err != nil {
			return err
		}
		if err := b.addHTTP(fasthttpFigure, other, "tcp", other.addr, smallName, oip.EncodeBinary); err != nil {
			return err
		}
	}
	return errors.Join(
		b.addHTTP(echoFigure, echo, "tcp", echo.addr, smallName, oip.EncodeBinary),
		b.addHTTP(echoUnixFigure, echo, "unix", socket, smallName, oip.EncodeBinary),
	)
}

// libraryOf is the library of an engine, which is fetched where the cache lacks it.
func libraryOf(ctx context.Context, name string, progress io.Writer) (string, error) {
	dir, err := pack.Libraries(ctx, name, runtime.GOARCH, true, progress)
	return filepath.Join(dir, engine.All()[name].Library), err
}

// batches are the numbers of rows among which the engine's best is looked for.
func batches() []int { return []int{8, 16, 32, 64} }

func (b *bench) add(t target) { b.targets = append(b.targets, t) }

func (b *bench) addHTTP(name string, p *process, network, addr, model string, encode encoding) error {
	r, err := request(model, encode)
	if err != nil {
		return err
	}
	return b.addClients(name, p, 1, func() (client, error) { return dial(network, addr, r) })
}

// crowd is how many clients ask at once.
const crowd = 64

func (b *bench) addCrowd(model, socket string) error {
	r, err := request(model, oip.EncodeBinary)
	if err != nil {
		return err
	}
	return b.addClients(crowdFigure(model), b.front, crowd, func() (client, error) { return dial("unix", socket, r) })
}

func (b *bench) addClients(name string, p *process, n int, connect func() (client, error)) error {
	l, err := clients(n, connect)
	if err != nil {
		return err
	}
	b.add(target{name: name, of: p, run: l.run})
	return nil
}

// coldStarts serves the models, and adds the ways to them.
func (b *bench) coldStarts(names ...string) error {
	socket := filepath.Join(b.dir, "front.sock")
	for _, name := range names {
		before := cpu(b.front.tree())
		if _, err := b.front.ask("serve " + name + " " + b.models[name].String()); err != nil {
			return err
		}
		r, err := request(name, oip.EncodeBinary)
		if err != nil {
			return err
		}
		first, err := dial("unix", socket, r)
		if err != nil {
			return err
		}
		if err := first.ask(); err != nil {
			return err
		}
		first.close()
		b.figures[coldFigure(name)] = float64((cpu(b.front.tree()) - before).Microseconds())
		b.add(target{hopFigure(name), b.front, asking(b.front, "core "+name), 1})
		if err := errors.Join(
			b.addClients(memoryPathFigure(name), b.front, 1, func() (client, error) { return dialShared(socket, name) }),
			b.addHTTP(unixFigure(name), b.front, "unix", socket, name, oip.EncodeBinary),
			b.addHTTP(binaryFigure(name), b.front, "tcp", b.front.addr, name, oip.EncodeBinary),
		); err != nil {
			return err
		}
	}
	return nil
}

// addOther adds the other protocols.
func (b *bench) addOther(name string) error {
	return errors.Join(
		b.addHTTP(jsonFigure(name), b.front, "tcp", b.front.addr, name, oip.EncodeJSON),
		b.addClients(grpcFigure(name), b.front, 1, func() (client, error) { return dialGRPC(b.front.addr, name) }),
	)
}

// addMany adds large requests, and many clients.
func (b *bench) addMany() error {
	socket := filepath.Join(b.dir, "front.sock")
	if _, err := b.front.ask("serve " + rowsName + " " + b.models[smallName].String()); err != nil {
		return err
	}
	return errors.Join(
		b.addClients(memoryPathFigure(rowsName), b.front, 1, func() (client, error) { return dialShared(socket, rowsName) }),
		b.addHTTP(unixFigure(rowsName), b.front, "unix", socket, rowsName, oip.EncodeBinary),
		b.addHTTP(jsonFigure(largeName), b.front, "tcp", b.front.addr, largeName, oip.EncodeJSON),
		b.addCrowd(smallName, socket),
		b.addCrowd(largeName, socket),
	)
}

func (b *bench) startPeers() {
	const firstPort, perPeer = 18080, 20
	for i, p := range peers() {
		for j, name := range []string{smallName, largeName} {
			port := firstPort + perPeer*i + 5*j
			s, l, err := startPeer(b.ctx, p, b.models[name].file, port)
			if err != nil {
				b.absent = append(b.absent, fmt.Sprintf("%s: %v", p.name, err))
				break
			}
			b.running = append(b.running, s)
			b.add(target{name: peerFigure(p.name, name), of: s, run: l.run})
		}
	}
}

// measureAll measures all targets in rounds, so that what else the computer does
// reaches each alike.
func (b *bench) measureAll() error {
	got, counts := map[string][]float64{}, map[string]int{}
	for round := range b.rounds + 1 {
		b.say("round %d of %d", round, b.rounds) // round 0 warms and counts
		for _, t := range b.targets {
			if err := b.ctx.Err(); err != nil {
				return err
			}
			n := counts[t.name]
			if round == 0 {
				var err error
				if n, err = b.count(t); err != nil {
					return fmt.Errorf("%s: %w", t.name, err)
				}
				counts[t.name] = n
				continue
			}
			tree := t.of.tree()
			before := cpu(tree)
			if err := t.run(n); err != nil {
				return fmt.Errorf("%s: %w", t.name, err)
			}
			got[t.name] = append(got[t.name], float64((cpu(tree)-before).Nanoseconds())/1000/float64(n*max(t.rows, 1)))
		}
	}
	for name, all := range got {
		slices.Sort(all)
		b.figures[name] = all[len(all)/2]
	}
	return nil
}

// count finds how often a target runs in one turn.
func (b *bench) count(t target) (int, error) {
	const first, least = 100, 20
	begin := time.Now()
	if err := t.run(first); err != nil {
		return 0, err
	}
	each := time.Since(begin) / first
	return max(least, int(b.turn/max(each, time.Microsecond))), nil
}

// tenModels looks at the memory of the front when it serves ten models.
func (b *bench) tenModels() error {
	for i := 4; i < 10; i++ {
		if _, err := b.front.ask(fmt.Sprintf("serve m%d %s", i, b.models[smallName])); err != nil {
			return err
		}
	}
	bytes, err := linux.ResidentBytes(b.front.cmd.Process.Pid)
	b.figures[memoryFigure] = float64(bytes)
	return err
}
