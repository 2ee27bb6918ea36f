package cli

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	pb "oscine.dev/oscine/internal/api/oscinepb"
	"oscine.dev/oscine/internal/client"
	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/printable"
)

func newModelExplainCommand(env *Env) *cobra.Command {
	var output *string
	c := &cobra.Command{
		Use: "explain NAME", Short: "Show which engines read a model, how fast they ran it, and why one was chosen", Args: exactArgs(1, "NAME"),
		Long: `Where several installed packs read a model and its manifest names no engine, the node runs
each for at most two seconds, on made-up inputs of one and of eight rows, compares what they
answer, and keeps the fastest. They are listed by preference: the first one is kept unless
another is faster by a tenth. The measurements are kept until the model, a pack or the
processor changes. With spec.engine in the manifest nothing is measured.`,
		Example: "  oscine model explain digits\n  oscine model explain digits -o json", ValidArgsFunction: completeObject(env, object.KindModel),
		RunE: func(c *cobra.Command, args []string) error {
			node, err := env.Client()
			if err != nil {
				return err
			}
			resp, err := node.Objects.Get(c.Context(), connect.NewRequest(&pb.GetRequest{Kind: string(object.KindModel), Name: args[0]}))
			if err != nil {
				return err
			}
			for _, obj := range resp.Msg.Objects {
				state, err := client.State(env.Kinds, obj)
				if err != nil {
					return err
				}
				if m, ok := state.Object.(*object.Model); ok && m.Spec.Ensemble != nil {
					return fmt.Errorf("model %s is an ensemble, which has no engine: explain the Models of its steps", args[0])
				}
				if st, ok := state.Status.(*object.ModelStatus); ok {
					return explained(args[0], st).print(env.Out, *output)
				}
			}
			return fmt.Errorf("the node reports no status for model %s", args[0])
		},
	}
	output = addOutput(c)
	return c
}

// explained lists the candidates of a model.
func explained(name string, st *object.ModelStatus) listing {
	l := listing{value: st.Candidates}
	for _, t := range st.Candidates {
		l.names = append(l.names, t.Pack)
	}
	l.table = func(out io.Writer, wide bool) error {
		if len(st.Candidates) == 0 {
			_, err := fmt.Fprintf(out, "model/%s has no engine yet: %s\n", name, orDash(printable.Text(strings.TrimSpace(string(st.Phase)+" "+st.Message))))
			return err
		}
		w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
		fmt.Fprintln(w, "\tPACK\tLOAD\t1 ROW\t8 ROWS\tDIFFERENCE\tWHY")
		for _, t := range st.Candidates {
			mark := ""
			if t.Chosen {
				mark = "*"
			}
			difference := "-"
			if t.Difference != nil {
				difference = fmt.Sprintf("%.2g", *t.Difference)
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", mark, printable.Text(t.Pack), measured(t.Load), measured(t.Batch1), measured(t.Batch8), difference, printable.Text(t.Reason))
		}
		return w.Flush()
	}
	return l
}

// measured writes a duration with three digits, or a dash for none.
func measured(d object.Duration) string {
	v := d.Std()
	if v == 0 {
		return "-"
	}
	for unit := time.Duration(1); ; unit *= 10 {
		if v < 1000*unit {
			return v.Round(unit).String()
		}
	}
}
