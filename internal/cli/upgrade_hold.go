package cli

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	pb "oscine.dev/oscine/internal/api/oscinepb"
	"oscine.dev/oscine/internal/printable"
)

func newUpgradeCancelCommand(env *Env) *cobra.Command {
	return &cobra.Command{
		Use: "cancel", Short: "End an upgrade before the machine restarts", Args: exactArgs(0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			node, err := env.Client()
			if err != nil {
				return err
			}
			resp, err := node.Upgrades.Cancel(c.Context(), connect.NewRequest(&pb.CancelUpgradeRequest{}))
			if err != nil {
				return err
			}
			fmt.Fprintf(env.Out, "upgrade %d to %s cancelled\n", resp.Msg.Upgrade.Number, printable.Text(cmp.Or(resp.Msg.Upgrade.To, "the newest release")))
			return nil
		},
	}
}

func newUpgradeLockCommand(env *Env) *cobra.Command {
	var req pb.LockUpgradeRequest
	var hold time.Duration
	c := &cobra.Command{
		Use: "lock NAME", Short: "Keep the machine from restarting for an upgrade", Args: exactArgs(1, "NAME"),
		Long: `Keep the machine from restarting for an upgrade, while something must not be
interrupted. The upgrade waits until all locks are released; an admin
can override them with oscine upgrade --override-locks.

With --no-return an application asks whether it may change its data in a way that older
versions cannot use, such as migrating a database. The command fails while the running
version is on trial, as the node may roll it back. Once it has succeeded, the node
refuses older versions, also after the lock is released.`,
		Example: "  oscine upgrade lock training --reason 'epoch 7 of 9' --for 6h\n  oscine upgrade unlock training\n  oscine upgrade lock db --no-return --reason 'migrates to format 9' && migrate; oscine upgrade unlock db",
		RunE: func(c *cobra.Command, args []string) error {
			if hold < 0 {
				return usageError{errors.New("--for must not be negative")}
			}
			node, err := env.Client()
			if err != nil {
				return err
			}
			req.Name, req.Seconds = args[0], int64(hold.Seconds())
			if _, err := node.Upgrades.Lock(c.Context(), connect.NewRequest(&req)); err != nil {
				return err
			}
			fmt.Fprintln(env.Out, "locked:", printable.Text(req.Name))
			return nil
		},
	}
	c.Flags().StringVar(&req.Reason, "reason", "", "reason, shown while an upgrade waits for the lock")
	c.Flags().BoolVar(&req.NoReturn, "no-return", false, "data is about to be changed for good: refuse older versions from now on")
	c.Flags().DurationVar(&hold, "for", 0, "release the lock after this time (default: never)")
	return c
}

func newUpgradeUnlockCommand(env *Env) *cobra.Command {
	return &cobra.Command{
		Use: "unlock NAME", Short: "Release a lock", Args: exactArgs(1, "NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			node, err := env.Client()
			if err != nil {
				return err
			}
			if _, err := node.Upgrades.Unlock(c.Context(), connect.NewRequest(&pb.UnlockUpgradeRequest{Name: args[0]})); err != nil {
				return err
			}
			fmt.Fprintln(env.Out, "unlocked:", printable.Text(args[0]))
			return nil
		},
	}
}

// newUpgradeHoldCommands are hold and unhold, pin and unpin.
func newUpgradeHoldCommands(env *Env) []*cobra.Command {
	do := func(c *cobra.Command, req *pb.HoldUpgradeRequest, done string) error {
		node, err := env.Client()
		if err != nil {
			return err
		}
		if _, err := node.Upgrades.Hold(c.Context(), connect.NewRequest(req)); err != nil {
			return err
		}
		fmt.Fprintln(env.Out, strings.TrimSpace(done))
		return nil
	}
	var reason string
	hold := &cobra.Command{
		Use: "hold", Short: "Refuse every upgrade until unhold", Args: exactArgs(0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			return do(c, &pb.HoldUpgradeRequest{What: &pb.HoldUpgradeRequest_Hold{Hold: reason}}, "upgrades are held")
		},
	}
	hold.Flags().StringVar(&reason, "reason", "", "reason, shown when an upgrade is refused")
	return []*cobra.Command{
		hold,
		{
			Use: "unhold", Short: "Allow upgrades again after hold", Args: exactArgs(0, ""),
			RunE: func(c *cobra.Command, _ []string) error {
				return do(c, &pb.HoldUpgradeRequest{What: &pb.HoldUpgradeRequest_Unhold{Unhold: true}}, "upgrades are no longer held")
			},
		},
		{
			Use: "pin VERSION", Short: "Refuse every version but one", Args: exactArgs(1, "VERSION"),
			RunE: func(c *cobra.Command, args []string) error {
				return do(c, &pb.HoldUpgradeRequest{What: &pb.HoldUpgradeRequest_Pin{Pin: args[0]}}, "pinned to "+printable.Text(args[0]))
			},
		},
		{
			Use: "unpin", Short: "Remove the pin", Args: exactArgs(0, ""),
			RunE: func(c *cobra.Command, _ []string) error {
				return do(c, &pb.HoldUpgradeRequest{What: &pb.HoldUpgradeRequest_Unpin{Unpin: true}}, "no longer pinned")
			},
		},
	}
}
