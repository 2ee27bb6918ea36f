package cli

import (
	"fmt"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	pb "oscine.dev/oscine/internal/api/oscinepb"
	"oscine.dev/oscine/internal/printable"
)

func newResetCommand(env *Env) *cobra.Command {
	var yes bool
	c := &cobra.Command{
		Use: "reset", Short: "Erase all that a node stores, and start it as new", Args: exactArgs(0, ""),
		Long: `Erase all that a node stores: workloads, models, packs, volumes and logs, its Machine, its
key and what it knows of its owner. The node restarts, erases its data partition and waits
for a configuration. The version that runs stays, and so does the other slot. Once the node
restarts there is no way back: a power failure meanwhile only delays it. See docs/install.md.`,
		Example: "  oscine reset\n  oscine reset --yes",
		RunE: func(c *cobra.Command, _ []string) error {
			node, err := env.Client()
			if err != nil {
				return err
			}
			info, err := node.Node.Info(c.Context(), connect.NewRequest(&pb.InfoRequest{}))
			if err != nil {
				return err
			}
			name := printable.Text(info.Msg.Name)
			fmt.Fprintf(env.Err, "All that %s stores will be erased: its objects, models, packs, volumes and logs, its Machine and its key.\n", name)
			if err := confirmByName(env, yes, info.Msg.Name); err != nil {
				return err
			}
			if _, err := node.Node.Reset(c.Context(), connect.NewRequest(&pb.ResetRequest{})); err != nil {
				return err
			}
			fmt.Fprintf(env.Out, "%s restarts and erases its data; then it waits for its configuration (oscine config apply)\n", name)
			return nil
		},
	}
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return c
}
