package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"oscine.dev/oscine/internal/sim"
)

// simFlags are the flags of oscine sim.
type simFlags struct {
	nodes, published, seeds string
	output                  *string
	pods, policies          []string
	tune                    float64
	scan                    bool
}

func newSimCommand(env *Env) *cobra.Command {
	f := simFlags{}
	c := &cobra.Command{
		Use:   "sim --nodes FILE --pods FILE",
		Short: "Replay a trace of a cluster through placement policies",
		Long: `Replay a trace of a cluster through placement policies and measure how much GPU
each allocates and leaves fragmented.

Traces are openb's CSV files: nodes with sn, cpu_milli, memory_mib, gpu, model;
pods with name, cpu_milli, memory_mib, num_gpu, gpu_milli and gpu_spec. Pods
arrive in an order drawn from each seed, drawn again until their GPU demand is
--tune times the capacity, are tried once and never leave.`,
		Example: `  oscine sim --nodes nodes.csv --pods default.csv --policy fgd,oscine
  oscine sim --nodes nodes.csv --pods 'pods/*.csv' --policy all -o svg > plots.svg`,
		Args: exactArgs(0, "no argument"),
		RunE: func(c *cobra.Command, _ []string) error { return f.run(c.Context(), env) },
	}
	c.Flags().StringVar(&f.nodes, "nodes", "", "CSV file of the cluster's nodes")
	c.Flags().StringSliceVar(&f.pods, "pods", nil, "CSV files of pods, each a workload; patterns such as 'pods/*.csv' are understood")
	c.Flags().StringSliceVar(&f.policies, "policy", []string{"oscine"}, strings.Join(sim.Policies(), ", ")+" or all")
	c.Flags().StringVar(&f.seeds, "seeds", "42..51", "seeds of the arrival orders, such as 42..51 or 42,43")
	f.output = addReportOutput(c, "csv", "svg")
	c.Flags().Float64Var(&f.tune, "tune", 1.3, "GPU demand to arrive, over the cluster's capacity")
	c.Flags().StringVar(&f.published, "published", "", "CSV summary of published results to show beside (table only)")
	c.Flags().BoolVar(&f.scan, "scan", false, "rate every node for every pod, to compare with the faster search")
	return c
}

func (f *simFlags) run(ctx context.Context, env *Env) error {
	m, err := f.matrix()
	if err != nil {
		return err
	}
	var published sim.Published
	if f.published != "" {
		if published, err = readFile(f.published, sim.ReadPublished); err != nil {
			return err
		}
	}
	bar := newBar(env, fmt.Sprintf("%d runs", len(m.Workloads)*len(m.Policies)*len(m.Seeds)))
	results, err := m.Run(ctx, bar.show)
	bar.done()
	if err != nil {
		return err
	}
	switch *f.output {
	case outputJSON, outputYAML:
		return writeDocument(env.Out, sim.Documents(results), *f.output)
	case "csv":
		return sim.WriteCSV(env.Out, results)
	case "svg":
		return sim.WriteSVG(env.Out, results)
	}
	return sim.WriteTable(env.Out, results, published)
}

// matrix reads what the flags name.
func (f *simFlags) matrix() (*sim.Matrix, error) {
	if f.nodes == "" || len(f.pods) == 0 {
		return nil, usageError{fmt.Errorf("--nodes and --pods are required; see oscine sim --help")}
	}
	if !(f.tune > 0 && f.tune <= 2) {
		return nil, usageError{fmt.Errorf("--tune must be more than 0 and at most 2, got %g", f.tune)}
	}
	m := &sim.Matrix{Policies: f.policies, Tune: f.tune, ScanAll: f.scan}
	if slices.Contains(f.policies, "all") {
		m.Policies = sim.Policies()
	}
	for _, p := range m.Policies {
		if err := sim.CheckPolicy(p); err != nil {
			return nil, usageError{err}
		}
	}
	var err error
	if m.Seeds, err = sim.ParseSeeds(f.seeds); err != nil {
		return nil, usageError{err}
	}
	if m.Nodes, err = readFile(f.nodes, sim.ReadNodes); err != nil {
		return nil, err
	}
	for _, pattern := range f.pods {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			files = []string{pattern} // opening it says what is wrong
		}
		for _, file := range files {
			pods, err := readFile(file, sim.ReadPods)
			if err != nil {
				return nil, err
			}
			m.Workloads = append(m.Workloads, sim.Workload{Name: workloadName(file), Pods: pods})
		}
	}
	return m, nil
}

// workloadName is a file's name without its ending and openb's prefix.
func workloadName(file string) string {
	name := strings.TrimSuffix(filepath.Base(file), filepath.Ext(file))
	return strings.TrimPrefix(name, "openb_pod_list_")
}

func readFile[T any](path string, read func(io.Reader, string) (T, error)) (T, error) {
	r, err := os.Open(path)
	if err != nil {
		var none T
		return none, unreadable(path, err)
	}
	defer r.Close()
	return read(r, path)
}

// bar shows the part done of a long computation on one line of a terminal;
// elsewhere it is silent.
type bar struct {
	env   *Env
	label string
	start time.Time
	last  time.Time
	live  bool
}

func newBar(env *Env, label string) *bar {
	return &bar{env: env, label: label, start: time.Now(), live: isTerminal(env.Err)}
}

func (b *bar) show(done float64) {
	if !b.live || time.Since(b.last) < 100*time.Millisecond {
		return
	}
	b.last = time.Now()
	const width = 32
	full := int(done * width)
	left := ""
	if done > 0.02 {
		left = fmt.Sprintf(", %s left", (time.Duration(float64(time.Since(b.start)) * (1 - done) / done)).Round(time.Second))
	}
	fmt.Fprintf(b.env.Err, "\r\033[K%s [%s%s] %3.0f %%%s", b.label, strings.Repeat("█", full), strings.Repeat("░", width-full), 100*done, left)
}

func (b *bar) done() {
	if b.live {
		fmt.Fprint(b.env.Err, "\r\033[K")
	}
}
