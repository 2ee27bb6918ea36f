package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"time"

	"oscine.dev/oscine/internal/machine"
)

// Stage is one part of a boot, from the end of the one before.
type Stage struct {
	Name         string        `json:"name"`
	CPU          time.Duration `json:"cpuNanoseconds"`         // of QEMU
	Instructions int64         `json:"instructions,omitempty"` // of the guest, where they were counted
}

// Staged is one way to boot, stage by stage.
type Staged struct {
	Way     string  `json:"way"`     // direct or uefi
	CPU     []Stage `json:"cpu"`     // the median of several boots, with as many processors as the comparison
	Counted []Stage `json:"counted"` // one boot with one processor, its instructions counted
}

// Ways to boot.
const (
	wayDirect = "direct"
	wayUEFI   = "uefi"
)

// The stages, in their order, and the console's line that ends each.
const (
	stageLoader = "boot loader, kernel unpacks" // ends when the kernel runs, which no line tells
	stageKernel = "kernel"
	stageAPI    = "daemon: node, API"
	stageAnswer = "first answer"
)

var stageLines = []struct {
	name string
	end  *regexp.Regexp
}{
	{"firmware", regexp.MustCompile(`BdsDxe: starting`)},
	{stageLoader, nil},
	{stageKernel, regexp.MustCompile(`oscine-init: stage 1 begins`)},
	{"stage 1: modules", regexp.MustCompile(`oscine-init: \d+ modules`)},
	{"stage 1: slot, data, root", regexp.MustCompile(`oscine-init: slot root-`)},
	{"init: mounts, modules", regexp.MustCompile(`oscine-init: mounts in`)},
	{"init: the rest", regexp.MustCompile(`oscine-init: oscined started`)},
	{"daemon: program starts", regexp.MustCompile(`configuration read`)},
	{stageAPI, regexp.MustCompile(`oscined: API on`)},
}

// stagePoll is how often a booting machine is looked at: the error of a stage.
const stagePoll = 10 * time.Millisecond

// follow watches m boot until ask succeeds, and returns its stages.
func follow(ctx context.Context, m *machine.Machine, way string, counted bool, ask func(context.Context) error) ([]Stage, error) {
	f := follower{m: m, counted: counted}
	lines := stageLines
	if way == wayDirect {
		lines = lines[1:]
	}
	for _, line := range lines {
		passed := func(ctx context.Context) (bool, error) { return f.printed(line.end) }
		if line.end == nil {
			passed = m.InKernel
		}
		if err := f.wait(ctx, line.name, passed); err != nil {
			return nil, err
		}
	}
	err := f.wait(ctx, stageAnswer, func(ctx context.Context) (bool, error) {
		attempt, done := context.WithTimeout(ctx, 2*time.Second)
		defer done()
		return ask(attempt) == nil, nil
	})
	return f.stages, err
}

// follower samples a booting machine.
type follower struct {
	m       *machine.Machine
	counted bool
	stages  []Stage
	before  Stage // the sums of all stages so far
}

func (f *follower) wait(ctx context.Context, name string, passed func(context.Context) (bool, error)) error {
	for {
		now, err := f.now(ctx)
		if err != nil {
			return fmt.Errorf("stage %s: QEMU ended before the system was up: %w", name, err)
		}
		// Sampled before the look: a stage that ended meanwhile ended at its next.
		done, err := passed(ctx)
		if done {
			f.stages = append(f.stages, Stage{name, now.CPU - f.before.CPU, now.Instructions - f.before.Instructions})
			f.before = now
			return nil
		}
		if err = errors.Join(err, pause(ctx, stagePoll)); err != nil {
			return fmt.Errorf("stage %s: %w", name, err)
		}
	}
}

func (f *follower) now(ctx context.Context) (now Stage, err error) {
	if now.CPU, err = f.m.CPUTime(); err == nil && f.counted {
		now.Instructions, err = f.m.Instructions(ctx)
	}
	return now, err
}

func (f *follower) printed(line *regexp.Regexp) (bool, error) {
	text, err := os.ReadFile(f.m.ConsoleLog())
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return line.Match(text), err
}

// sumOf adds stages up, from the one of that name on; "" for all.
func sumOf(stages []Stage, from string) (sum Stage) {
	for _, s := range stages {
		if s.Name == from {
			sum = Stage{}
		}
		sum.CPU += s.CPU
		sum.Instructions += s.Instructions
	}
	return sum
}

// medianStages takes the median of each stage's processor time.
func medianStages(boots [][]Stage) []Stage {
	if len(boots) == 0 {
		return nil
	}
	var out []Stage
	for i, first := range boots[0] {
		column := make([]BootSample, len(boots))
		for b := range boots {
			column[b].CPU = boots[b][i].CPU
		}
		out = append(out, Stage{Name: first.Name, CPU: median(column).CPU})
	}
	return out
}

// staged boots the image in one way, Runs times for processor time unless
// given, once to count instructions.
func (b Boot) staged(ctx context.Context, way string, boots [][]Stage) (Staged, error) {
	for len(boots) < b.Runs {
		stages, err := b.bootStages(ctx, way, false)
		if err != nil {
			return Staged{}, err
		}
		fmt.Fprintf(b.Log, "%s boot %d of Oscine: %.1f CPU-s\n", way, len(boots)+1, sumOf(stages, "").CPU.Seconds())
		boots = append(boots, stages)
	}
	counted, err := b.bootStages(ctx, way, true)
	if err != nil {
		return Staged{}, err
	}
	fmt.Fprintf(b.Log, "%s boot of Oscine, counted: %d million instructions\n", way, sumOf(counted, "").Instructions/1e6)
	return Staged{Way: way, CPU: medianStages(boots), Counted: counted}, nil
}

// bootStages boots the image and powers it off hard once it answers.
func (b Boot) bootStages(ctx context.Context, way string, counted bool) (stages []Stage, err error) {
	err = b.withMachine(ctx, way, counted, func(m *machine.Machine, s []Stage) error { stages = s; return nil })
	return stages, err
}

// withMachine boots the image, calls f when it answers and powers it off hard.
func (b Boot) withMachine(ctx context.Context, way string, counted bool, f func(*machine.Machine, []Stage) error) (err error) {
	state, err := os.MkdirTemp("", "oscine-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(state)) }()
	o := machine.Options{
		StateDir: state, Name: "boot", Image: b.Image, Arch: b.Arch, Direct: way == wayDirect, Volatile: true,
		Config: b.Config, Memory: memory, CPUs: processors, Ports: []machine.Port{{Guest: 7443}},
	}
	if counted {
		o.ICount, o.CPUs = "0", "1"
	}
	m, err := machine.Start(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Delete(true)) }()
	booting, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	stages, err := follow(booting, m, way, counted, func(ctx context.Context) error {
		_, err := b.Memory(ctx, m.Addr(7443))
		return err
	})
	if err != nil {
		return fmt.Errorf("%w; its console said last:\n%s", err, lastLines(m.ConsoleLog()))
	}
	return f(m, stages)
}

// writeStages prints one table of all ways.
func writeStages(w io.Writer, ways []Staged) {
	fmt.Fprintf(w, "%-32s", "")
	for _, s := range ways {
		fmt.Fprintf(w, " %10s %14s", s.Way, "")
	}
	fmt.Fprintf(w, "\n%-32s", "stage")
	for range ways {
		fmt.Fprintf(w, " %10s %14s", "CPU-s", "instructions M")
	}
	fmt.Fprintln(w)
	row := func(name string, of func(stages []Stage) (Stage, bool)) {
		fmt.Fprintf(w, "%-32s", name)
		for _, s := range ways {
			cpu, here := of(s.CPU)
			counted, _ := of(s.Counted)
			if !here {
				fmt.Fprintf(w, " %10s %14s", "-", "-")
				continue
			}
			fmt.Fprintf(w, " %10.2f %14.0f", cpu.CPU.Seconds(), float64(counted.Instructions)/1e6)
		}
		fmt.Fprintln(w)
	}
	find := func(name string) func([]Stage) (Stage, bool) {
		return func(stages []Stage) (Stage, bool) {
			for _, s := range stages {
				if s.Name == name {
					return s, true
				}
			}
			return Stage{}, false
		}
	}
	total := func(from string) func([]Stage) (Stage, bool) {
		return func(stages []Stage) (Stage, bool) { return sumOf(stages, from), true }
	}
	for _, line := range stageLines {
		row(line.name, find(line.name))
	}
	row(stageAnswer, find(stageAnswer))
	row("power-on to the first answer", total(""))
	row("kernel's start to the first answer", total(stageKernel))
}
