package worker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"oscine.dev/oscine/internal/linux"
	"oscine.dev/oscine/internal/serve/channel"
	"oscine.dev/oscine/internal/tensor"
)

// server is the worker, over all its connections.
type server struct {
	engine  Engine
	say     func(format string, a ...any)
	lost    func(error) // ends the program
	session Session     // nil: none is loaded
	loaded  channel.Load
	meta    channel.Metadata
	figures figures
	joined  atomic.Int64 // runs that requests have shared
	alone   atomic.Bool  // they share none any more: an answer differed from the one computed alone
}

// figures are the counters behind channel.Statistics.
type figures struct {
	runs, requests, failed, cancelled, partial, compute, load atomic.Int64
}

func (f *figures) read() channel.Statistics {
	resident, _ := linux.ResidentBytes(os.Getpid()) // 0 where it is not known
	return channel.Statistics{
		Runs: f.runs.Load(), Requests: f.requests.Load(), Failed: f.failed.Load(), Cancelled: f.cancelled.Load(),
		Partial: f.partial.Load(), ComputeNS: f.compute.Load(), LoadNS: f.load.Load(), MemoryBytes: resident,
	}
}

// statistics are the worker's figures, with what the session counts.
func (s *server) statistics() channel.Statistics {
	all := s.figures.read()
	if c, ok := s.session.(Counter); ok {
		c.Count(&all)
	}
	return all
}

func (s *server) unload() error {
	if s.session == nil {
		return nil
	}
	err := s.session.Close()
	s.session, s.loaded = nil, channel.Load{}
	return err
}

func (s *server) open(load channel.Load) error {
	begin := time.Now()
	threads, err := threads(load.Threads)
	if err != nil {
		return err
	}
	info, err := os.Stat(load.Path)
	switch {
	case err != nil:
		return fmt.Errorf("the model file cannot be read: %w", err)
	case info.Mode().Type()&^fs.ModeDir != 0:
		return errors.New("the model is neither a file nor a folder")
	}
	values, own, err := channel.SplitOptions(load.Options)
	if err != nil {
		return err
	}
	if err := channel.CheckOptions(values, s.engine.Options()); err != nil {
		return err
	}
	session, err := s.engine.Open(load.Path, Options{Threads: threads, Values: values, Name: load.Name, Memory: load.Memory, Lost: s.lost})
	if err != nil {
		return err
	}
	meta := session.Metadata()
	meta.Threads = threads
	if err := stateBatch(&meta, own[channel.OptionBatch]); err != nil {
		return errors.Join(err, session.Close())
	}
	err = SelfTest(session, &meta, s.say)
	if errors.Is(err, ErrDiffers) && own[channel.OptionDeterministic] == channel.DeterministicNo {
		s.say("%v", err)
		err = nil
	}
	if err != nil {
		return errors.Join(err, session.Close())
	}
	s.session, s.loaded, s.meta = session, load, meta
	s.figures.load.Store(int64(time.Since(begin)))
	return nil
}

// threads counts the processors of this process's cpuset, at most limit unless
// that is 0.
func threads(limit int) (int, error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return 0, fmt.Errorf("read the cpuset: %w", err)
	}
	n := max(1, set.Count())
	if limit > 0 {
		n = min(n, limit)
	}
	return n, nil
}

// ErrDiffers is returned by SelfTest of a model that answers the same inputs
// differently.
var ErrDiffers = errors.New("two runs on the same inputs differ: either the model keeps a state, and what one client sends shows in another's answers, " +
	"or it answers at random; remove the state (TorchScript: option reset=METHOD), or state deterministic=false to serve it as it is")

// Stateless is implemented by sessions of formats that cannot keep a state from run
// to run: what differs there is random.
type Stateless interface{ Stateless() }

// selfTestBytes bounds the inputs and the outputs of a self-test.
const selfTestBytes = 64 << 20

// SelfTest runs the model twice on inputs of ones, where open dimensions are
// one. There are engines that answer zeros to the first run of some models and
// fail at the second: what works once has to work twice. A model that works
// neither time may want other inputs, unless that is the engine's own failure; the
// first request will tell. Where the two answers differ by more than rounding the
// error is ErrDiffers, unless the session is Stateless. What it has to say and is no reason to refuse goes to say.
//
// Some engines fail at pictures of one pixel, now and then without a word, and what
// is compiled for several rows may refuse one: a model that fails so is tried again
// with larger open dimensions, then with two rows.
func SelfTest(session Session, meta *channel.Metadata, say func(format string, a ...any)) error {
	err := selfTest(session, meta, 1, 1, say)
	if err != nil && !errors.Is(err, ErrDiffers) && openInside(meta) {
		say("self-test where open dimensions are one: %v", err)
		err = selfTest(session, meta, 1, selfTestOpen, say)
	}
	if err != nil && !errors.Is(err, ErrDiffers) && openRows(meta) {
		say("self-test of one row: %v", err)
		err = selfTest(session, meta, 2, selfTestOpen, say)
	}
	return err
}

// selfTestOpen is what open dimensions behind the first are in the second self-test.
const selfTestOpen = 64

// openRows reports whether a first dimension is open.
func openRows(meta *channel.Metadata) bool {
	return slices.ContainsFunc(meta.Inputs, func(spec tensor.Spec) bool { return len(spec.Shape) > 0 && spec.Shape[0] < 0 })
}

// openInside reports whether a dimension behind the first is open.
func openInside(meta *channel.Metadata) bool {
	for _, spec := range meta.Inputs {
		for j, d := range spec.Shape {
			if j > 0 && d < 0 {
				return true
			}
		}
	}
	return false
}

func selfTest(session Session, meta *channel.Metadata, rows, open int64, say func(format string, a ...any)) error {
	shapes, sizes := make([]tensor.Shape, len(meta.Inputs)), make([]int, len(meta.Inputs))
	total := 0
	for i, spec := range meta.Inputs {
		shapes[i] = spec.Concrete(rows, open)
		n, err := spec.LeastBytes(shapes[i])
		if err != nil || n > selfTestBytes-total {
			say("no self-test: the inputs are too large")
			return nil
		}
		sizes[i] = n
		total += channel.Aligned(n)
	}
	var memory Block
	memory = memory.AtLeast(total + selfTestBytes)
	defer memory.Free()
	offsets, end, err := channel.Layout(meta.Inputs, shapes, sizes, nil)
	if err != nil {
		return err
	}
	inputs := make([]Tensor, len(shapes))
	for i := range inputs {
		inputs[i] = Tensor{shapes[i], memory[offsets[i]:][:sizes[i]]}
		fillOnes(inputs[i].Data, meta.Inputs[i].Type)
	}
	results := [2]channel.Result{}
	var errs [2]error
	var failed [2]bool
	var outputs [2][]byte
	for i := range 2 {
		out := Output{meta: meta, memory: memory, at: end, result: &results[i], wanted: all(meta)}
		errs[i] = session.Run(context.Background(), inputs, &out)
		failed[i] = errors.Is(errs[i], ErrEngine)
		if errs[i] == nil {
			errs[i] = out.complete()
		}
		outputs[i] = bytes.Clone(memory[end:out.at])
	}
	switch {
	case failed[0] && failed[1]:
		return fmt.Errorf("the engine cannot run the model: %w", errs[0])
	case errs[0] != nil && errs[1] != nil:
		say("self-test: %v", errs[0])
	case errs[1] != nil:
		return fmt.Errorf("the engine ran the model once and not a second time: %w", errs[1])
	case errs[0] != nil:
		return fmt.Errorf("the engine ran the model only the second time: %w", errs[0])
	case !sameAnswers(meta, results, outputs, end):
		if _, stateless := session.(Stateless); !stateless {
			return ErrDiffers
		}
		say("self-test: two runs on the same inputs differ")
	}
	return nil
}

// sameAnswers compares two results but for rounding; outputs are their bytes, from
// the offset start on.
func sameAnswers(meta *channel.Metadata, results [2]channel.Result, outputs [2][]byte, start int) bool {
	if bytes.Equal(outputs[0], outputs[1]) {
		return true
	}
	for i, spec := range meta.Outputs {
		var parts [2][]byte
		for j, r := range results {
			parts[j] = outputs[j][r.Offsets[i]-start:][:r.Sizes[i]]
		}
		if !slices.Equal(results[0].Shapes[i], results[1].Shapes[i]) || !near(parts[0], parts[1], spec.Type) {
			return false
		}
	}
	return true
}

// fillOnes writes ones, which divide and index as zeros may not.
func fillOnes(data []byte, kind tensor.DataType) {
	var one []byte
	switch kind {
	case tensor.FP16:
		one = []byte{0, 0x3c}
	case tensor.BF16:
		one = []byte{0x80, 0x3f}
	case tensor.FP32:
		one = []byte{0, 0, 0x80, 0x3f}
	case tensor.FP64:
		one = []byte{0, 0, 0, 0, 0, 0, 0xf0, 0x3f}
	case tensor.Bytes:
		return
	default:
		one = append([]byte{1}, make([]byte, kind.Size()-1)...)
	}
	for at := 0; at+len(one) <= len(data); at += len(one) {
		copy(data[at:], one)
	}
}
