package demo

import (
	"fmt"
	"os"
	"path/filepath"
	"text/tabwriter"

	"oscine.dev/oscine/internal/printable"
)

// Report is what the demo measured, as it goes to demo.json.
type Report struct {
	Pictures  int             `json:"pictures"`
	Right     int             `json:"right"`
	Accuracy  float64         `json:"accuracy"` // 0 to 1
	Fonts     int             `json:"fonts"`
	Client    Latency         `json:"latencyAtClient"` // from sending a picture to its answer
	Node      Latency         `json:"latencyInNode"`   // of the same requests, inside daemon and worker
	Engine    string          `json:"engine"`
	Placement PlacementReport `json:"placement"`

	API         Moment        `json:"powerOnToAPI"`
	FirstAnswer Moment        `json:"powerOnToFirstAnswer"` // the upload of pack and model included
	Machine     MachineReport `json:"machine"`
	Image       ImageReport   `json:"image"`
	Pack        PackReport    `json:"pack"`
	Chat        *ChatReport   `json:"chat,omitempty"` // where it was asked for

	Upgrade UpgradeReport `json:"upgrade,omitzero"`       // to a second release
	Broken  UpgradeReport `json:"brokenUpgrade,omitzero"` // to one that does not work

	SystemMemoryBytes int64           `json:"systemMemoryBytes"` // PSS of all of the system's own processes
	Processes         []ProcessReport `json:"processes"`
	Seconds           float64         `json:"seconds"` // of the whole demo
}

// Latency is in milliseconds.
type Latency struct {
	P50 float64 `json:"p50Milliseconds"`
	P99 float64 `json:"p99Milliseconds"`
}

// Moment is a time since power-on.
type Moment struct {
	Seconds    float64 `json:"seconds"`
	CPUSeconds float64 `json:"cpuSeconds"` // that QEMU had used, which a busy host does not spoil
}

// PlacementReport says where the worker runs.
type PlacementReport struct {
	CPUs   string `json:"cpus"`
	Reason string `json:"reason"`
}

// MachineReport says what was booted.
type MachineReport struct {
	Arch         string  `json:"arch"`
	Accel        string  `json:"accel"`
	Direct       bool    `json:"direct"`
	CPUs         string  `json:"cpus"`
	MemoryBytes  int64   `json:"memoryBytes"`
	Kernel       string  `json:"kernel"`
	Version      string  `json:"version"`
	ReadySeconds float64 `json:"kernelSecondsToAPI"` // by the machine's own clock
}

// ImageReport says how large the image is.
type ImageReport struct {
	File            string `json:"file"`
	CompressedBytes int64  `json:"compressedBytes"`
	WrittenBytes    int64  `json:"writtenBytes"` // of the sparse file
	DiskBytes       int64  `json:"diskBytes"`
}

// PackReport says which engine served.
type PackReport struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Bytes   int64  `json:"bytes"`
	Digest  string `json:"digest"`
}

// UpgradeReport is what came of an upgrade.
type UpgradeReport struct {
	To     string `json:"to"`               // version
	Took   Moment `json:"took"`             // from the command to the model's first answer after it
	Reason string `json:"reason,omitempty"` // why the node went back
}

// ProcessReport is the memory (PSS) of one of the system's processes.
type ProcessReport struct {
	Name  string `json:"name"`
	Bytes int64  `json:"bytes"`
}

// summary prints the figures and how to go on.
func (r *run) summary() {
	p := &r.report
	w := tabwriter.NewWriter(r.Out, 0, 8, 2, ' ', 0)
	line := func(what, format string, args ...any) {
		fmt.Fprintf(w, "  %s\t%s\n", what, fmt.Sprintf(format, args...))
	}
	fmt.Fprintln(w)
	line("accuracy", "%.1f %% (%d of %d pictures, %d fonts never seen in training)", 100*p.Accuracy, p.Right, p.Pictures, p.Fonts)
	line("latency", "p50 %.1f ms, p99 %.1f ms at the client; p50 %.2f ms, p99 %.2f ms inside the node", p.Client.P50, p.Client.P99, p.Node.P50, p.Node.P99)
	line("placed", "on CPUs %s: %s", p.Placement.CPUs, p.Placement.Reason)
	line("power-on to API", "%.1f s, %.1f CPU-seconds of QEMU (%s)", p.API.Seconds, p.API.CPUSeconds, p.Machine.Accel)
	line("power-on to first answer", "%.1f s, %.1f CPU-seconds, with sending the engine and the model", p.FirstAnswer.Seconds, p.FirstAnswer.CPUSeconds)
	line("image", "%s compressed, %s written", printable.Bytes(p.Image.CompressedBytes), printable.Bytes(p.Image.WrittenBytes))
	line("engine pack", "%s, %s %s", printable.Bytes(p.Pack.Bytes), p.Pack.Name, p.Pack.Version)
	if c := p.Chat; c != nil {
		line("chat", "%d tokens in %.1f s, the first after %.1f s; %.1f CPU-seconds with sending engine and model", c.Tokens, c.Seconds, c.First, c.CPUSeconds)
	}
	line("memory of the system", "%s", printable.Bytes(p.SystemMemoryBytes))
	if u := p.Upgrade; u.To != "" {
		line("upgrade", "to %s in %.1f s, %.1f CPU-seconds, until the model answered again", u.To, u.Took.Seconds, u.Took.CPUSeconds)
		line("broken release", "%s was left again in %.1f s, %.1f CPU-seconds: %s", p.Broken.To, p.Broken.Took.Seconds, p.Broken.Took.CPUSeconds, printable.Text(p.Broken.Reason))
	}
	line("figures", "%s", r.Report)
	// Nothing can be done about an output that is gone.
	_ = w.Flush()
	if !r.Keep {
		fmt.Fprintf(r.Out, "\nThe machine is gone. make demo KEEP=1 leaves it running for you.\n")
		return
	}
	programs, err := os.Executable()
	if err != nil {
		programs = os.Args[0]
	}
	fmt.Fprintf(r.Out, `
The machine %[1]s goes on running. Go on by hand:
  export PATH=%[4]s:$PATH OSCINE_CONFIG=%[2]s
  oscine infer digits %[3]s/pictures/*.png
  oscine describe model digits
  oscine hardware
  oscine get models --watch
Remove it with: oscine machine delete --force %[1]s
`, Name, r.config(), r.dir(), filepath.Dir(programs))
}
