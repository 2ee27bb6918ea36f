package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"oscine.dev/oscine/internal/machine"
)

// settle is how long a machine idles after its boot before its memory counts.
const settle = 40 * time.Second

// readyTimeout bounds a boot; an emulated one on a busy host takes a minute.
const readyTimeout = 10 * time.Minute

// Boot describes a comparison of boots.
type Boot struct {
	Image  string // Oscine's disk image
	Config []byte // Machine manifest for it
	Runs   int    // of each system; the median counts
	Dir    string // for what is measured; the peer is kept below it
	Log    io.Writer

	// Memory asks the node at address, host:port, for the resident memory of
	// its system's processes, in bytes. An error means that it is not up yet.
	Memory func(ctx context.Context, address string) (int64, error)
}

// BootSample is one boot of one system.
type BootSample struct {
	CPU       time.Duration `json:"cpuNanoseconds"`  // of QEMU, from power-on to the first answer over the network
	Wall      time.Duration `json:"wallNanoseconds"` // the same on the clock
	Processes int64         `json:"processBytes"`    // resident memory of the system's processes (PSS) when idle
	QEMU      int64         `json:"qemuBytes"`       // resident memory of QEMU then: itself and all that the guest ever touched
}

// BootReport is the outcome.
type BootReport struct {
	Accel  string       `json:"accel"` // kvm or tcg
	Oscine []BootSample `json:"oscine"`
	Debian []BootSample `json:"debian"`
}

// Run boots both systems in turn, each Runs times.
func (b Boot) Run(ctx context.Context) (BootReport, error) {
	var report BootReport
	peer, err := b.makePeer(ctx)
	if err != nil {
		return report, fmt.Errorf("make the Debian to compare with: %w", err)
	}
	for i := range b.Runs {
		ours, accel, err := b.bootOscine(ctx)
		if err != nil {
			return report, fmt.Errorf("boot Oscine: %w", err)
		}
		report.Accel = accel
		fmt.Fprintf(b.Log, "boot %d of Oscine: %s\n", i+1, ours)
		theirs, err := peer.boot(ctx, accel)
		if err != nil {
			return report, fmt.Errorf("boot Debian: %w", err)
		}
		fmt.Fprintf(b.Log, "boot %d of Debian: %s\n", i+1, theirs)
		report.Oscine, report.Debian = append(report.Oscine, ours), append(report.Debian, theirs)
	}
	return report, nil
}

// String is one line for a progress log.
func (s BootSample) String() string {
	return fmt.Sprintf("%.1f CPU-s to the first answer, %d MiB in processes, %d MiB in QEMU", s.CPU.Seconds(), s.Processes>>20, s.QEMU>>20)
}

// bootOscine boots the image and powers it off hard.
func (b Boot) bootOscine(ctx context.Context) (sample BootSample, accel string, err error) {
	state, err := os.MkdirTemp("", "oscine-bench-")
	if err != nil {
		return sample, "", err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(state)) }()
	m, err := machine.Start(ctx, machine.Options{
		StateDir: state, Name: "boot", Image: b.Image, Direct: true, Volatile: true,
		Config: b.Config, Memory: memory, CPUs: processors, Ports: []machine.Port{{Guest: 7443}},
	})
	if err != nil {
		return sample, "", err
	}
	defer func() { err = errors.Join(err, m.Delete(true)) }()
	address := m.Addr(7443)
	sample.CPU, sample.Wall, err = untilReady(ctx, m.CPUTime, func(ctx context.Context) error {
		_, err := b.Memory(ctx, address)
		return err
	})
	if err != nil {
		return sample, "", fmt.Errorf("%w; its console said last:\n%s", err, lastLines(m.ConsoleLog()))
	}
	if err := pause(ctx, settle); err != nil {
		return sample, "", err
	}
	if sample.QEMU, err = residentMemory(m.PID()); err != nil {
		return sample, "", err
	}
	sample.Processes, err = b.Memory(ctx, address)
	return sample, m.Accel(), err
}

// lastLines is the end of a console's log.
func lastLines(file string) string {
	text, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	const end = 1500
	return strings.TrimSpace(string(text[max(0, len(text)-end):]))
}

// untilReady asks until an answer comes, and returns what that took.
func untilReady(ctx context.Context, cpuTime func() (time.Duration, error), ask func(context.Context) error) (cpu, wall time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	began := time.Now()
	for {
		attempt, done := context.WithTimeout(ctx, 2*time.Second)
		failure := ask(attempt)
		done()
		cpu, err := cpuTime()
		if err != nil {
			return 0, 0, fmt.Errorf("QEMU ended before the system was up: %w", err)
		}
		if failure == nil {
			return cpu, time.Since(began), nil
		}
		if pause(ctx, 50*time.Millisecond) != nil {
			return 0, 0, fmt.Errorf("no answer within %s: %w", readyTimeout, failure)
		}
	}
}

// answersHTTP asks for a page.
func answersHTTP(url string) func(context.Context) error {
	// No connection is kept: the first ones may hang in a guest that is not up.
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	return func(ctx context.Context) error {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		response, err := client.Do(request)
		if err != nil {
			return err
		}
		return response.Body.Close()
	}
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// Write prints the medians and their ratios.
func (r BootReport) Write(w io.Writer) error {
	ours, theirs := median(r.Oscine), median(r.Debian)
	fmt.Fprintf(w, "Median of %d boots each, kernel started directly, QEMU with %s, 2 processors, 2 GiB:\n\n", len(r.Oscine), r.Accel)
	fmt.Fprintf(w, "%-44s %10s %10s %8s\n", "", "Oscine", "Debian", "ratio")
	row := func(what, unit string, a, b float64) {
		fmt.Fprintf(w, "%-44s %10.1f %10.1f %8.2f\n", what+", "+unit, a, b, a/b)
	}
	row("processor time to the first answer", "s", ours.CPU.Seconds(), theirs.CPU.Seconds())
	row("clock time to the first answer", "s", ours.Wall.Seconds(), theirs.Wall.Seconds())
	row("memory of the system's processes", "MiB", mebibytes(ours.Processes), mebibytes(theirs.Processes))
	row("resident memory of QEMU with its guest", "MiB", mebibytes(ours.QEMU), mebibytes(theirs.QEMU))
	_, err := fmt.Fprintln(w, "\nDebian 13 is minimal: systemd, containerd, nginx, an initramfs of three drivers.")
	return err
}

func mebibytes(n int64) float64 { return float64(n) / (1 << 20) }

// median takes the median of each column.
func median(samples []BootSample) BootSample {
	return BootSample{
		CPU:       middle(samples, func(s BootSample) time.Duration { return s.CPU }),
		Wall:      middle(samples, func(s BootSample) time.Duration { return s.Wall }),
		Processes: middle(samples, func(s BootSample) int64 { return s.Processes }),
		QEMU:      middle(samples, func(s BootSample) int64 { return s.QEMU }),
	}
}

func middle[T int64 | time.Duration](samples []BootSample, column func(BootSample) T) T {
	if len(samples) == 0 {
		return 0
	}
	var values []T
	for _, s := range samples {
		values = append(values, column(s))
	}
	slices.Sort(values)
	return values[len(values)/2]
}
