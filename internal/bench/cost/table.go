package main

import (
	"fmt"
	"io"
	"math"
	"text/tabwriter"
)

// figures are µs of processor time for one inference, by the name of what was
// measured; memory is in bytes.
type figures map[string]float64

// Names of figures.
const (
	echoFigure     = "echo net/http"
	echoUnixFigure = "echo net/http unix"
	fasthttpFigure = "echo fasthttp"
	memoryFigure   = "front bytes with ten models"
)

func rawFigure(model string) string        { return "engine " + model }
func batchFigure(rows int) string          { return fmt.Sprintf("engine large %d rows", rows) }
func hopFigure(model string) string        { return "worker hop " + model }
func unixFigure(model string) string       { return "unix binary " + model }
func memoryPathFigure(model string) string { return "unix memfd " + model }
func binaryFigure(model string) string     { return "http binary " + model }
func jsonFigure(model string) string       { return "http json " + model }
func grpcFigure(model string) string       { return "grpc " + model }
func crowdFigure(model string) string      { return "64 clients unix binary " + model }
func coldFigure(model string) string       { return "cold start " + model }
func aloneFigure(model string) string      { return "load alone " + model }
func peerFigure(peer, model string) string { return peer + ", " + model }

// printWays prints what each way to the small model costs, in a unit.
func (b *bench) printWays(w io.Writer, what, unit string) {
	f := b.figures
	echo, engine, hop := f[echoFigure], f[rawFigure(smallName)], f[hopFigure(smallName)]
	fmt.Fprintf(w, "%s\t%s\tadded\tof an echo\tgoal\n", what, unit)
	fmt.Fprintf(w, "bare net/http echo\t%.1f\t\t1.00\t\n", echo)
	fmt.Fprintf(w, "the same over a Unix socket\t%.1f\t\t%.2f\t\n", f[echoUnixFigure], f[echoUnixFigure]/echo)
	if v, ok := f[fasthttpFigure]; ok {
		fmt.Fprintf(w, "bare fasthttp echo\t%.1f\t\t%.2f\t\n", v, v/echo)
	}
	fmt.Fprintf(w, "the engine alone, 64 floats\t%.1f\t\t\t\n", engine)
	fmt.Fprintf(w, "queue and worker, added to the engine\t%.1f\t%.1f\t%.2f\t0.60\n", hop, hop-engine, (hop-engine)/echo)
	fmt.Fprintf(w, "added to queue and worker by\t\t\t\t\n")
	for _, row := range []struct {
		what, figure string
		goal         float64
	}{
		{"Unix socket, memfd", memoryPathFigure(smallName), 0.25},
		{"Unix socket, binary", unixFigure(smallName), 0.25},
		{"HTTP, binary", binaryFigure(smallName), 0.6},
		{"HTTP, JSON", jsonFigure(smallName), 0.8},
		{"gRPC", grpcFigure(smallName), 2},
	} {
		added := f[row.figure] - hop
		fmt.Fprintf(w, "  %s\t%.1f\t%.1f\t%.2f\t%.2f\n", row.what, f[row.figure], added, added/echo, row.goal)
	}
}

func (b *bench) print(out io.Writer) {
	f, w := b.figures, tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	b.printWays(w, "processor time of the servers for one request, one client", "µs")

	fmt.Fprintf(w, "\nengine's share of the processor time\tengine µs\tqueue and worker\tUnix socket, memfd\tgoal\n")
	for _, m := range []struct {
		name string
		goal float64
	}{{digitsName, 0.75}, {largeName, 0.95}} {
		raw := f[rawFigure(m.name)]
		fmt.Fprintf(w, "%s\t%.1f\t%.2f\t%.2f\t%.2f\n", m.name, raw, raw/f[hopFigure(m.name)], raw/f[memoryPathFigure(m.name)], m.goal)
	}

	fmt.Fprintf(w, "\na megabyte each way, Unix socket\tµs\t\t\t\n")
	fmt.Fprintf(w, "memfd\t%.0f\t\t\t\nbinary\t%.0f\t\t\t\n", f[memoryPathFigure(rowsName)], f[unixFigure(rowsName)])

	best, rows := math.Inf(1), 0
	for _, n := range batches() {
		if v := f[batchFigure(n)]; v < best {
			best, rows = v, n
		}
	}
	served := f[crowdFigure(largeName)]
	fmt.Fprintf(w, "\n64 clients of the large model, Unix socket\tµs\tof the engine's best\tgoal\tof one client\n")
	fmt.Fprintf(w, "the engine alone, %d rows at once\t%.1f\t1.00\t\t\n", rows, best)
	fmt.Fprintf(w, "served\t%.1f\t%.2f\t0.85\t%.2f\n", served, best/served, f[unixFigure(largeName)]/served)

	fmt.Fprintf(w, "\nfrom no worker to the first answer\tms of processor time\tgoal\n")
	fmt.Fprintf(w, "small\t%.0f\t60\n", f[coldFigure(smallName)]/1000)
	fmt.Fprintf(w, "digits\t%.0f\t60\n", f[coldFigure(digitsName)]/1000)
	fmt.Fprintf(w, "large\t%.0f\t\n", f[coldFigure(largeName)]/1000)
	fmt.Fprintf(w, "\nfront with ten models\t%.0f MB\tgoal 25 MB\n", f[memoryFigure]/1e6)
	_ = w.Flush()
	b.printPeers(out)
}

// ofPeers reports whether a figure is one with which other servers are compared.
func (b *bench) ofPeers(figure string) bool {
	for _, p := range peers() {
		if figure == p.ours(smallName) || figure == p.ours(largeName) {
			return true
		}
	}
	return false
}

// printPeers prints the other servers beside ours, and what could not be measured.
func (b *bench) printPeers(out io.Writer) {
	f, w := b.figures, tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "\nother servers, one client\tµs small\ttimes ours\tgoal\tµs large\ttimes ours\n")
	for _, p := range peers() {
		small, ok := f[peerFigure(p.name, smallName)]
		if !ok {
			continue
		}
		large := f[peerFigure(p.name, largeName)]
		fmt.Fprintf(w, "%s\t%.0f\t%.1f\t%.0f\t%.0f\t%.2f\n", p.name, small, small/f[p.ours(smallName)], p.goal, large, large/f[p.ours(largeName)])
	}
	for _, why := range b.absent {
		fmt.Fprintf(w, "not measured: %s\n", why)
	}
	_ = w.Flush()
}
