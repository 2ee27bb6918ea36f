package cli

import (
	"fmt"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	pb "oscine.dev/oscine/internal/api/oscinepb"
)

func newRecoveryKeyCommand(env *Env) *cobra.Command {
	c := &cobra.Command{Use: "recovery-key", Short: "Manage the recovery key of a node's encrypted data partition"}
	c.AddCommand(&cobra.Command{
		Use: "create", Short: "Make a recovery key, and show it once", Args: exactArgs(0, ""),
		Long: `Make a key that opens the node's data partition when its TPM does not: after the
TPM was cleared, Secure Boot's settings or keys were changed, or the disk was moved
to another machine. The key alone is written to standard output, now and never
again, and the node keeps no copy: store it where the node's failure cannot reach
it. A key from before opens the partition no more.

oscine unlock gives it to a node that is locked; cryptsetup open takes it on any
other Linux.`,
		Example: "  oscine recovery-key create\n  oscine recovery-key create --context edge1 > edge1.recovery",
		RunE: func(c *cobra.Command, _ []string) error {
			node, err := env.Client()
			if err != nil {
				return err
			}
			resp, err := node.Node.CreateRecoveryKey(c.Context(), connect.NewRequest(&pb.CreateRecoveryKeyRequest{}))
			if err != nil {
				return err
			}
			fmt.Fprintln(env.Out, resp.Msg.RecoveryKey)
			return nil
		},
	})
	return c
}
