package bench

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"oscine.dev/oscine/internal/linux"
	"oscine.dev/oscine/internal/machine"
)

// settle is how long a machine idles after its boot before its memory counts.
const settle = 40 * time.Second

// readyTimeout bounds a boot; an emulated one on a busy host takes a minute.
const readyTimeout = 10 * time.Minute

// Boot describes a comparison of boots.
type Boot struct {
	Image  string // Oscine's disk image
	Arch   string // of the image
	Alone  bool   // without the Debian, which is of this computer's architecture
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
	CPU       time.Duration `json:"cpuNanoseconds"` // of QEMU, from power-on to the first answer over the network
	Processes int64         `json:"processBytes"`   // resident memory of the system's processes (PSS) when idle
	QEMU      int64         `json:"qemuBytes"`      // resident memory of QEMU then: itself and all that the guest ever touched
}

// BootReport is the outcome.
type BootReport struct {
	Accel  string       `json:"accel"` // kvm or tcg
	Oscine []BootSample `json:"oscine"`
	Debian []BootSample `json:"debian,omitempty"`
	Staged []Staged     `json:"staged"` // Oscine's boots by stage

	Load       float64 `json:"load"`       // of this computer when it was over, see proc_loadavg(5)
	Processors int     `json:"processors"` // of this computer
}

// Run boots both systems in turn, each Runs times, and Oscine once more for
// each way to boot and count.
func (b Boot) Run(ctx context.Context) (BootReport, error) {
	report := BootReport{Processors: runtime.NumCPU()}
	var theirs peer
	if !b.Alone {
		var err error
		if theirs, err = b.makePeer(ctx); err != nil {
			return report, fmt.Errorf("make the Debian to compare with: %w", err)
		}
	}
	var direct [][]Stage
	for i := range b.Runs {
		sample, stages, accel, err := b.bootOscine(ctx)
		if err != nil {
			return report, fmt.Errorf("boot Oscine: %w", err)
		}
		report.Accel = accel
		report.Oscine, direct = append(report.Oscine, sample), append(direct, stages)
		fmt.Fprintf(b.Log, "boot %d of Oscine: %s\n", i+1, sample)
		if b.Alone {
			continue
		}
		if sample, err = theirs.boot(ctx, accel); err != nil {
			return report, fmt.Errorf("boot Debian: %w", err)
		}
		report.Debian = append(report.Debian, sample)
		fmt.Fprintf(b.Log, "boot %d of Debian: %s\n", i+1, sample)
	}
	for _, way := range []struct {
		name  string
		boots [][]Stage
	}{{wayDirect, direct}, {wayUEFI, nil}} {
		staged, err := b.staged(ctx, way.name, way.boots)
		if err != nil {
			return report, fmt.Errorf("boot Oscine (%s): %w", way.name, err)
		}
		report.Staged = append(report.Staged, staged)
	}
	var err error
	report.Load, err = hostLoad()
	return report, err
}

// hostLoad is the load of this computer over the last five minutes.
func hostLoad() (float64, error) {
	raw, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0, err
	}
	var one, five float64
	if _, err := fmt.Sscan(string(raw), &one, &five); err != nil {
		return 0, fmt.Errorf("/proc/loadavg: %w", err)
	}
	return five, nil
}

// String is one line for a progress log.
func (s BootSample) String() string {
	return fmt.Sprintf("%.1f CPU-s to the first answer, %d MiB in processes, %d MiB in QEMU", s.CPU.Seconds(), s.Processes>>20, s.QEMU>>20)
}

// bootOscine boots the image directly and leaves it idle for its memory.
func (b Boot) bootOscine(ctx context.Context) (sample BootSample, stages []Stage, accel string, err error) {
	err = b.withMachine(ctx, wayDirect, false, func(m *machine.Machine, s []Stage) (err error) {
		stages, accel, sample.CPU = s, m.Accel(), sumOf(s, "").CPU
		if err := pause(ctx, settle); err != nil {
			return err
		}
		if sample.QEMU, err = linux.ResidentBytes(m.PID()); err != nil {
			return err
		}
		sample.Processes, err = b.Memory(ctx, m.Addr(7443))
		return err
	})
	return sample, stages, accel, err
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
func untilReady(ctx context.Context, cpuTime func() (time.Duration, error), ask func(context.Context) error) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	for {
		attempt, done := context.WithTimeout(ctx, 2*time.Second)
		failure := ask(attempt)
		done()
		cpu, err := cpuTime()
		if err != nil {
			return 0, fmt.Errorf("QEMU ended before the system was up: %w", err)
		}
		if failure == nil {
			return cpu, nil
		}
		if pause(ctx, 50*time.Millisecond) != nil {
			return 0, fmt.Errorf("no answer within %s: %w", readyTimeout, failure)
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

// Write prints the stages, and the medians with their ratios.
func (r BootReport) Write(w io.Writer) error {
	fmt.Fprintf(w, "Oscine from power-on to the first answer of its API, by stage. CPU-s: processor time of QEMU with\n%s, 2 processors, 2 GiB, median of %d boots. Instructions: one boot of one emulated processor.\n\n", r.Accel, len(r.Oscine))
	writeStages(w, r.Staged)
	ours, theirs := median(r.Oscine), median(r.Debian)
	fmt.Fprintf(w, "\nBoots with the kernel started directly, medians:\n\n%-44s %10s", "", "Oscine")
	if len(r.Debian) > 0 {
		fmt.Fprintf(w, " %10s %8s", "Debian", "ratio")
	}
	fmt.Fprintln(w)
	row := func(what, unit string, a, b float64) {
		fmt.Fprintf(w, "%-44s %10.1f", what+", "+unit, a)
		if len(r.Debian) > 0 {
			fmt.Fprintf(w, " %10.1f %8.2f", b, a/b)
		}
		fmt.Fprintln(w)
	}
	row("processor time to the first answer", "s", ours.CPU.Seconds(), theirs.CPU.Seconds())
	row("memory of the system's processes", "MiB", mebibytes(ours.Processes), mebibytes(theirs.Processes))
	row("resident memory of QEMU with its guest", "MiB", mebibytes(ours.QEMU), mebibytes(theirs.QEMU))
	if len(r.Debian) > 0 {
		fmt.Fprintln(w, "\nDebian 13 is minimal: systemd, containerd, nginx, an initramfs of three drivers.")
	}
	_, err := fmt.Fprintf(w, "\nThis computer had a load of %.1f on %d processors. Others' work makes processor times larger, by\nhalf and more where it fills all processors; it does not change instructions, which repeat within 2 %%.\n", r.Load, r.Processors)
	return err
}

func mebibytes(n int64) float64 { return float64(n) / (1 << 20) }

// median takes the median of each column.
func median(samples []BootSample) BootSample {
	return BootSample{
		CPU:       middle(samples, func(s BootSample) time.Duration { return s.CPU }),
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
