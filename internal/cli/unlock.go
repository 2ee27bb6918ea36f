package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	pb "oscine.dev/oscine/internal/api/oscinepb"
	"oscine.dev/oscine/internal/client"
	"oscine.dev/oscine/internal/printable"
)

// unlockOptions are the flags of unlock.
type unlockOptions struct {
	applyOptions // address and fingerprint
	keyFile      string
}

func newUnlockCommand(env *Env) *cobra.Command {
	var o unlockOptions
	c := &cobra.Command{
		Use: "unlock --address HOST[:PORT]", Short: "Open a node's locked data partition with its recovery key", Args: exactArgs(0, ""),
		Long: `Give the recovery key (oscine recovery-key create) to a node whose data partition
is locked: its TPM was cleared, Secure Boot's settings or keys were changed, or the
disk is in another machine now. The node's TPM then keeps the key as the machine is
now, and the machine restarts.

The node's certificate lies on the locked partition. Compare its fingerprint with the
one on its console: this command asks for it, unless --fingerprint gives it. The key
is asked for, or read from --key-file.`,
		Example: "  oscine unlock --address 192.0.2.7\n  oscine unlock --address 192.0.2.7 --fingerprint 3f…a1 --key-file edge1.recovery",
		RunE:    func(c *cobra.Command, _ []string) error { return unlock(c.Context(), env, o) },
	}
	c.Flags().StringVar(&o.address, "address", "", "the node's address")
	c.Flags().StringVar(&o.fingerprint, "fingerprint", "", "SHA-256 of the node's certificate, from its console")
	c.Flags().BoolVar(&o.skipFingerprint, "insecure-skip-fingerprint", false, "take whichever machine answers for the node")
	c.Flags().StringVar(&o.keyFile, "key-file", "", "file with the recovery key, - for standard input")
	c.MarkFlagsMutuallyExclusive("fingerprint", "insecure-skip-fingerprint")
	_ = c.MarkFlagRequired("address")
	return c
}

func unlock(ctx context.Context, env *Env, o unlockOptions) error {
	host, port, err := splitAddress(o.address)
	if err != nil {
		return err
	}
	node, err := client.DialMaintenance(ctx, net.JoinHostPort(host, port), nil)
	if err != nil {
		return err
	}
	state, err := node.Describe(ctx, connect.NewRequest(&pb.DescribeRequest{}))
	if err != nil {
		return err
	}
	if state.Msg.Locked == "" {
		return fmt.Errorf("the data partition of the node at %s is not locked: it waits for a configuration (oscine config apply)", o.address)
	}
	fmt.Fprintf(env.Err, "locked: %s\n", printable.Text(state.Msg.Locked))
	o.file = o.keyFile // a key from standard input leaves no one to ask
	if err := checkFingerprint(env, o.applyOptions, node); err != nil {
		return err
	}
	key, err := o.key(env)
	if err != nil {
		return err
	}
	if _, err := node.Unlock(ctx, connect.NewRequest(&pb.UnlockRequest{RecoveryKey: key})); err != nil {
		return err
	}
	fmt.Fprintln(env.Out, "the recovery key is right; the node restarts and opens its data partition")
	return nil
}

func (o *unlockOptions) key(env *Env) (string, error) {
	if o.keyFile != "" {
		text, err := readFileOrStdin(env, o.keyFile)
		return strings.TrimSpace(string(text)), err
	}
	terminal, ok := terminalOf(env.In)
	if !ok {
		return "", usageError{errors.New("give the recovery key by --key-file FILE, or - for standard input")}
	}
	text, err := askSecret(env, terminal, "Recovery key (it is not shown): ")
	return strings.TrimSpace(string(text)), err
}
