package cli

import (
	"cmp"
	"fmt"
	"io"
	"strconv"
	"text/tabwriter"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	pb "oscine.dev/oscine/internal/api/oscinepb"
	"oscine.dev/oscine/internal/client"
	"oscine.dev/oscine/internal/object"
)

func newPsCommand(env *Env) *cobra.Command {
	var output *string
	var labelText string
	c := &cobra.Command{
		Use: "ps", Short: "List the workloads and models that run now", Args: exactArgs(0, "no argument"),
		Long: `List the workloads and models that have a process now. oscine get lists all
objects, including those that wait, have ended or are stopped; oscine top workloads and
oscine top models show what they use.`,
		Example: "  oscine ps\n  oscine ps -l app=shop -o name",
		RunE: func(c *cobra.Command, _ []string) error {
			labels, err := parseLabels(labelText)
			if err != nil {
				return err
			}
			node, err := env.Client()
			if err != nil {
				return err
			}
			resp, err := node.Objects.Get(c.Context(), connect.NewRequest(&pb.GetRequest{}))
			if err != nil {
				return err
			}
			var objects []*pb.Object
			var rows []running
			for _, obj := range labels.choose(resp.Msg.Objects) {
				state, err := client.State(env.Kinds, obj)
				if err != nil {
					return err
				}
				if row, ok := runningOf(state); ok {
					objects, rows = append(objects, obj), append(rows, row)
				}
			}
			if *output != outputTable && *output != outputWide {
				return printObjects(env, objects, *output)
			}
			return printRunning(env.Out, rows)
		},
	}
	output = addOutput(c)
	c.Flags().StringVarP(&labelText, "selector", "l", "", labelHelp)
	return c
}

// running is an object that has a process.
type running struct {
	object.State
	pid  int
	what string // image or engine
}

func runningOf(state object.State) (running, bool) {
	r := running{State: state}
	switch st := state.Status.(type) {
	case *object.WorkloadStatus:
		r.pid = st.PID
		if w, ok := state.Object.(*object.Workload); ok {
			r.what = w.Spec.Image
			if w.Spec.Pack != "" {
				r.what = "pack " + w.Spec.Pack
			}
		}
	case *object.ModelStatus:
		r.pid, r.what = st.PID, st.Engine
		for i := range st.Instances {
			r.pid = cmp.Or(r.pid, st.Instances[i].PID)
		}
	}
	return r, r.pid != 0
}

func printRunning(out io.Writer, rows []running) error {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "KIND\tNAME\tPHASE\tPID\tCPUS\tUP\tIMAGE OR ENGINE")
	for _, r := range rows {
		st := r.Status.Common()
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", r.Kind, r.Name, orDash(string(st.Phase)), strconv.Itoa(r.pid), orDash(st.CPUs()), age(st.StartedAt), orDash(r.what))
	}
	return w.Flush()
}
