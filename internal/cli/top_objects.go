package cli

import (
	"context"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"connectrpc.com/connect"
	dto "github.com/prometheus/client_model/go"
	"github.com/spf13/cobra"

	"oscine.dev/oscine/internal/api/oscinepb"
	"oscine.dev/oscine/internal/client"
	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/printable"
)

// minTop is the shortest time over which top measures objects.
const minTop = 100 * time.Millisecond

// newTopObjectsCommand shows what the objects of one kind use.
func newTopObjectsCommand(env *Env, kind object.Kind, plural string) *cobra.Command {
	var every time.Duration
	var histogram bool
	c := &cobra.Command{
		Use: plural, Short: "Show what " + plural + " use: CPU, memory, wake-ups, promises", Args: exactArgs(0, "no argument"),
		Long: fmt.Sprintf(`Show what the %s of a node use, measured over --every from the node's metrics:
CPU use in cores, memory now, wake-ups per second and their p99 latency, and the
promises that are kept or broken now. A value that the node does not measure, or
whose object does not run, is -.`, plural),
		Example: "  oscine top " + plural + "\n  oscine top " + plural + " --every 10s",
		RunE: func(c *cobra.Command, _ []string) error {
			if every < minTop {
				return usageError{fmt.Errorf("--every %s is too short: %s at least", every, minTop)}
			}
			node, err := env.Client()
			if err != nil {
				return err
			}
			return topObjects(c.Context(), env, node, kind, every, histogram)
		},
	}
	c.Flags().DurationVar(&every, "every", time.Second, "how long to measure")
	if kind == object.KindModel {
		c.Long += topModelsHelp
		c.Example += "\n  oscine top models --histogram --every 10s"
		c.Flags().BoolVar(&histogram, "histogram", false, "also show how the latency of each model's requests is distributed")
	}
	return c
}

func topObjects(ctx context.Context, env *Env, node *client.Client, kind object.Kind, every time.Duration, histogram bool) error {
	resp, err := node.Objects.Get(ctx, connect.NewRequest(&oscinepb.GetRequest{Kind: string(kind)}))
	if err != nil {
		return err
	}
	first, err := scrape(ctx, node)
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(every):
	}
	second, err := scrape(ctx, node)
	if err != nil {
		return err
	}
	tw := tabwriter.NewWriter(env.Out, 0, 8, 2, ' ', 0)
	titles := "NAME\tCLASS\tPHASE\tCPU\tMEMORY\tLIMIT\tWAKE-UPS/S\tWAKE-UP P99\tPROMISES"
	if kind == object.KindModel {
		titles += servingTitles
	}
	fmt.Fprintln(tw, titles)
	var all []usage
	for _, obj := range resp.Msg.Objects {
		state, err := client.State(env.Kinds, obj)
		if err != nil {
			return err
		}
		u := usage{kind: string(kind), name: obj.Name, before: first, after: second}
		class, phase := "", ""
		if p, ok := state.Object.(object.Placeable); ok {
			class = string(p.Class())
		}
		if state.Status != nil {
			phase = string(state.Status.Common().Phase)
		}
		cells := []string{obj.Name, class, phase, u.cpu(), u.bytes("memory_usage_bytes"), u.bytes("memory_limit_bytes")}
		wakeups, p99 := u.wakeups()
		cells = append(cells, wakeups, p99, u.promises())
		if kind == object.KindModel {
			cells = append(cells, u.serving()...)
		}
		for i, cell := range cells {
			cells[i] = orDash(cell)
		}
		fmt.Fprintln(tw, strings.Join(cells, "\t"))
		all = append(all, u)
	}
	if err := tw.Flush(); err != nil || !histogram {
		return err
	}
	for _, u := range all {
		if err := u.writeLatencies(env.Out); err != nil {
			return err
		}
	}
	return nil
}

// sample is a node's metrics at a time.
type sample struct {
	at       time.Time
	families map[string]*dto.MetricFamily
}

func scrape(ctx context.Context, node *client.Client) (sample, error) {
	families, err := node.Metrics(ctx)
	return sample{time.Now(), families}, err
}

// find returns the metric whose labels have all the given values, nil for none.
func (s sample) find(name string, labels map[string]string) *dto.Metric {
	for _, m := range s.families["oscine_"+name].GetMetric() {
		matching := 0
		for _, l := range m.Label {
			if want, asked := labels[l.GetName()]; asked && want == l.GetValue() {
				matching++
			}
		}
		if matching == len(labels) {
			return m
		}
	}
	return nil
}

// usage is what one object did between two samples.
type usage struct {
	kind, name    string
	before, after sample
}

func (u *usage) seconds() float64 { return u.after.at.Sub(u.before.at).Seconds() }

func (u *usage) both(name string) (before, after *dto.Metric) {
	labels := map[string]string{"kind": u.kind, "name": u.name}
	return u.before.find("container_"+name, labels), u.after.find("container_"+name, labels)
}

// cpu is the CPUs' worth of time that it used. It and the cells below are empty where
// the node does not measure them.
func (u *usage) cpu() string {
	before, after := u.both("cpu_usage_seconds_total")
	used := after.GetCounter().GetValue() - before.GetCounter().GetValue()
	if before == nil || after == nil || used < 0 { // it ended, or began again
		return ""
	}
	return fmt.Sprintf("%.2f", used/u.seconds())
}

func (u *usage) bytes(name string) string {
	_, after := u.both(name)
	if after == nil {
		return ""
	}
	return printable.Bytes(int64(after.GetGauge().GetValue()))
}

// wakeups are those in a second, and the bound that 99 % of them kept.
func (u *usage) wakeups() (rate, p99 string) {
	h := client.Between(u.both("wakeup_latency_seconds"))
	if h == nil {
		return "", ""
	}
	return fmt.Sprintf("%.0f", float64(h.Count)/u.seconds()), quantile(h, .99)
}

// promises tells how many hold now and how many do not.
func (u *usage) promises() string {
	_, made := u.both("promises")
	_, broken := u.both("promises_broken")
	if made == nil || broken == nil {
		return ""
	}
	b := broken.GetGauge().GetValue()
	kept := fmt.Sprintf("%.0f kept", made.GetGauge().GetValue()-b)
	if b > 0 {
		kept += fmt.Sprintf(", %.0f broken", b)
	}
	return kept
}
