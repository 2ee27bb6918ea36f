package cli

import (
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"oscine.dev/oscine/internal/api/oscinepb"
	"oscine.dev/oscine/internal/doctor"
)

func newDoctorCommand(env *Env) *cobra.Command {
	var node bool
	var output *string
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Report what this computer or a node can do, what depends on it and how to get it",
		Long: `Report every capability that Oscine has a use for: whether it is there, what
depends on it, and how to get it where it is missing.

Without --node it tries this computer: as the host of oscined --hosted, and as
the place where images are built and local machines run. Run it as root for
full answers. With --node it asks the node of the context.`,
		Args: exactArgs(0, "no argument"),
		RunE: func(c *cobra.Command, _ []string) error {
			found, err := examine(c.Context(), env, node)
			if err != nil {
				return err
			}
			names := make([]string, len(found))
			for i, one := range found {
				names[i] = one.Name
			}
			return listing{found, names, func(w io.Writer, _ bool) error { return writeDoctorTable(w, found) }}.print(env.Out, *output)
		},
	}
	c.Flags().BoolVar(&node, "node", false, "ask the node of the context")
	output = addOutput(c)
	return c
}

func examine(ctx context.Context, env *Env, node bool) ([]doctor.Capability, error) {
	if !node {
		return append(doctor.Run(ctx, "/"), doctor.Tools(ctx)...), nil
	}
	client, err := env.Client()
	if err != nil {
		return nil, err
	}
	reply, err := client.Node.Doctor(ctx, connect.NewRequest(&oscinepb.DoctorRequest{}))
	if err != nil {
		return nil, err
	}
	var found []doctor.Capability
	for _, c := range reply.Msg.GetCapabilities() {
		found = append(found, doctor.Capability{
			Name: c.GetName(), Available: c.GetAvailable(), Detail: c.GetDetail(), NeededFor: c.GetNeededFor(), Remedy: c.GetRemedy(),
		})
	}
	return found, nil
}

// writeDoctorTable lists what is there in one line each, then what is missing
// with what it costs and how to get it.
func writeDoctorTable(w io.Writer, found []doctor.Capability) error {
	missing := doctor.Missing(found)
	fmt.Fprintf(w, "%d of %d capabilities are there:\n\n", len(found)-len(missing), len(found))
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, c := range found {
		if c.Available {
			fmt.Fprintf(table, "  yes\t%s\t%s\n", c.Name, c.Detail)
		}
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if len(missing) == 0 {
		return nil
	}
	fmt.Fprintf(w, "\n%d are missing:\n", len(missing))
	for _, c := range missing {
		fmt.Fprintf(w, "\n  no   %s: %s\n", c.Name, c.Detail)
		fmt.Fprintf(w, "       for   %s\n", wrap(c.NeededFor, "             "))
		fmt.Fprintf(w, "       do    %s\n", wrap(c.Remedy, "             "))
	}
	return nil
}

// wrap breaks text at 80 columns, with indent before every line but the first.
func wrap(text, indent string) string {
	const width = 80
	var b strings.Builder
	column := len(indent)
	for i, word := range strings.Fields(text) {
		switch {
		case i == 0:
		case column+1+len(word) > width:
			b.WriteString("\n" + indent)
			column = len(indent)
		default:
			b.WriteByte(' ')
			column++
		}
		b.WriteString(word)
		column += len(word)
	}
	return b.String()
}
