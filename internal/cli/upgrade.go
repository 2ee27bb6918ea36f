package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "oscine.dev/oscine/internal/api/oscinepb"
	"oscine.dev/oscine/internal/client"
	"oscine.dev/oscine/internal/printable"
)

func newUpgradeCommand(env *Env) *cobra.Command {
	var req pb.StartUpgradeRequest
	var at, wait string
	var dryRun bool
	var gate time.Duration
	c := &cobra.Command{
		Use: "upgrade [SOURCE]", Short: "Upgrade a node to another release of Oscine, or roll it back", Args: rangeArgs(0, 1, "SOURCE at most"),
		Long: `Upgrade a node to another release of Oscine. The release is fetched into the idle
slot, and the packs and models that it pins beside those in use; it is checked, and
started at a time that you allow. Then the node
checks itself: its API, network, clock and storage, that everything that ran before
runs again, one inference of each model, and what the Machine asks for. If a check
fails, or the release does not start at all, the node rolls back to the previous
version by itself, and records why.

SOURCE is where the releases are: a URL, oci://HOST/REPOSITORY:TAG in a registry, the path
of a folder on the node, or stick:LABEL/FOLDER for a USB stick in the node whose file
system has that label. By default it is spec.update.source of the Machine.

With --wait the command succeeds once the new version has passed its checks, and
fails if the node rolled back.`,
		Example: "  oscine upgrade --wait\n  oscine upgrade https://releases.example.com --to 1.4.2 --reboot-window 'Sat,Sun 02:00 4h'\n  oscine upgrade stick:RELEASES/releases --wait\n  oscine upgrade --dry-run\n  oscine upgrade status",
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 1 {
				req.Source = args[0]
			}
			if at != "" {
				when, err := parseWhen(at, time.Now())
				if err != nil {
					return usageError{err}
				}
				req.NotBefore = timestamppb.New(when)
			}
			if gate < 0 || gate != 0 && gate < time.Second {
				return usageError{fmt.Errorf("--gate-deadline %s: it is at least 1s", gate)}
			}
			req.GateSeconds = int64(gate.Seconds())
			patience, err := parsePatience(wait)
			if err != nil {
				return usageError{err}
			}
			node, err := env.Client()
			if err != nil {
				return err
			}
			if dryRun {
				return planUpgrade(c.Context(), env, node, &req)
			}
			resp, err := node.Upgrades.Start(c.Context(), connect.NewRequest(&req))
			if err != nil {
				return err
			}
			if patience == 0 {
				fmt.Fprintf(env.Out, "upgrade %d has begun; see oscine upgrade status\n", resp.Msg.Upgrade.Number)
				return nil
			}
			return awaitUpgrade(c.Context(), env, node, resp.Msg.Upgrade.Number, patience)
		},
	}
	f := c.Flags()
	f.StringVar(&req.To, "to", "", "version to install, which may be an older one (default: the newest on offer)")
	f.StringVar(&at, "at", "", "do not restart before: a time such as 2026-12-24T02:00:00Z, or a duration from now such as 8h")
	f.StringArrayVar(&req.Windows, "reboot-window", nil, "restart only within, in UTC: such as 'Sat,Sun 02:00 4h' (default: the windows of the Machine); may be repeated")
	f.BoolVar(&req.Anytime, "now", false, "restart as soon as the release is written, ignoring the windows of the Machine")
	f.BoolVar(&req.OverrideLocks, "override-locks", false, "restart even if applications hold locks")
	f.BoolVar(&req.Force, "force", false, "allow a version that failed on this node before, or one from before a point of no return")
	f.BoolVar(&req.DownloadOnly, "download-only", false, "fetch and check the release, but do not restart until oscine upgrade is run again")
	f.DurationVar(&gate, "gate-deadline", 0, "time in which the new version must pass its checks (default: the Machine's)")
	f.BoolVar(&dryRun, "dry-run", false, "show what would be done, and do nothing")
	f.StringVar(&wait, "wait", "", "wait for the outcome, at most this long; fails if the node rolled back")
	f.Lookup("wait").NoOptDefVal = "2h"
	c.MarkFlagsMutuallyExclusive("now", "reboot-window")
	c.AddCommand(newUpgradeStatusCommand(env), newUpgradeHistoryCommand(env), newUpgradeCancelCommand(env), newUpgradeLockCommand(env), newUpgradeUnlockCommand(env))
	c.AddCommand(newUpgradeHoldCommands(env)...)
	return c
}

func parsePatience(text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		return 0, fmt.Errorf("--wait %q is not a duration such as 30m", text)
	}
	return d, nil
}

// parseWhen reads a time, or a duration from now.
func parseWhen(text string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return now.Add(d), nil
	}
	when, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{}, fmt.Errorf("--at %q is neither a time such as 2026-12-24T02:00:00Z nor a duration such as 8h", text)
	}
	return when, nil
}

func planUpgrade(ctx context.Context, env *Env, node *client.Client, req *pb.StartUpgradeRequest) error {
	resp, err := node.Upgrades.Plan(ctx, connect.NewRequest(req))
	if err != nil {
		return err
	}
	m := resp.Msg
	how := "the whole root"
	if m.Delta {
		how = "a delta of the root"
	}
	fmt.Fprintf(env.Out, "%s would be replaced by %s (kernel %s)\nfetch %s: %s for a root of %s%s\n",
		printable.Text(m.Running), printable.Text(m.Version), printable.Text(m.Kernel), how, printable.Bytes(m.FetchBytes), printable.Bytes(m.RootBytes), fromPeer(m.Peer))
	for _, f := range m.Files {
		size := printable.Bytes(f.SizeBytes)
		if f.Stored {
			size += ", stored already"
		}
		fmt.Fprintf(env.Out, "fetch the %s %s: %s\n", printable.Text(f.Kind), printable.Text(f.Name), size)
	}
	_, err = fmt.Fprintf(env.Out, "write it to %s, restart, check, and keep it or roll back\n", printable.Text(m.Slot))
	return err
}

// upgradePoll is how often a waiting command asks.
const upgradePoll = time.Second

// stageGood is the one good end of an upgrade.
const stageGood = "good"

// awaitUpgrade waits for the end of an upgrade, and ends as that did.
func awaitUpgrade(ctx context.Context, env *Env, node *client.Client, number int64, patience time.Duration) error {
	w := newWaiting(env, "upgrade")
	defer w.done()
	stage := ""
	u, err := followUpgrade(ctx, node, number, patience, func(u *pb.Upgrade) {
		if u == nil {
			w.tell("the node restarts")
			return
		}
		if u.Stage != stage {
			stage = u.Stage
			fmt.Fprintf(env.Err, "%s %s\n", time.Now().Format(time.TimeOnly), upgradeStage(u))
		}
		w.tell(upgradeStage(u))
	})
	if err != nil {
		return err
	}
	return upgradeOutcome(env, u)
}

// followUpgrade calls see with an upgrade now and then, nil while the node does not
// answer, and returns it once it has ended. The node is away for a while: that it
// does not answer is no failure before the patience ends.
func followUpgrade(ctx context.Context, node *client.Client, number int64, patience time.Duration, see func(*pb.Upgrade)) (*pb.Upgrade, error) {
	deadline := time.Now().Add(patience)
	for {
		resp, err := askUpgrade(ctx, node, number)
		switch {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case err == nil && resp.Upgrade != nil:
			see(resp.Upgrade)
			if resp.Upgrade.Ended != nil {
				return resp.Upgrade, nil
			}
		case err != nil && connect.CodeOf(err) == connect.CodeNotFound:
			return nil, err
		default:
			see(nil)
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("upgrade %d has not ended within %s: see oscine upgrade status", number, patience)
		}
		select {
		case <-ctx.Done():
		case <-time.After(upgradePoll):
		}
	}
}

// askUpgrade asks once, not for longer than a node needs that is there.
func askUpgrade(ctx context.Context, node *client.Client, number int64) (*pb.UpgradeStatusResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	resp, err := node.Upgrades.Status(ctx, connect.NewRequest(&pb.UpgradeStatusRequest{Number: number}))
	if err != nil {
		return nil, err
	}
	return resp.Msg, nil
}

// upgradeStage says in one line where an upgrade is.
func upgradeStage(u *pb.Upgrade) string {
	text := fmt.Sprintf("%s → %s: %s", u.From, u.To, u.Stage)
	if u.To == "" {
		text = fmt.Sprintf("from %s: %s", u.From, u.Stage)
	}
	if u.SizeBytes > 0 {
		text += fmt.Sprintf(", %d %% of %s", 100*u.DoneBytes/u.SizeBytes, printable.Bytes(u.SizeBytes))
	}
	text += fromPeer(u.Peer)
	if u.Message != "" && u.Ended == nil {
		text += ", " + u.Message
	}
	return oneLine(text)
}

// fromPeer says that something comes from a peer, nothing where it comes from the source.
func fromPeer(peer string) string {
	if peer == "" {
		return ""
	}
	return ", from the peer " + printable.Text(peer)
}

// upgradeOutcome is what a command ends with.
func upgradeOutcome(env *Env, u *pb.Upgrade) error {
	if u.Stage == stageGood {
		fmt.Fprintf(env.Out, "%s passed its checks at %s\n", printable.Text(u.To), u.Ended.AsTime().Local().Format(time.TimeOnly))
		return nil
	}
	printUpgradeLog(env.Err, u)
	if u.Stage == "cancelled" {
		return fmt.Errorf("the upgrade to %s was cancelled %s", cmp.Or(u.To, "the newest release"), u.Message)
	}
	return fmt.Errorf("the upgrade to %s failed at stage %s, and the node runs %s: %s", u.To, u.FailedStage, u.From, u.Message)
}

func printUpgradeLog(w io.Writer, u *pb.Upgrade) {
	if len(u.Log) == 0 {
		return
	}
	fmt.Fprintln(w, "last lines of the failed version's log:")
	for _, line := range u.Log {
		fmt.Fprintln(w, "  "+printable.Text(line))
	}
}

func newUpgradeStatusCommand(env *Env) *cobra.Command {
	var output *string
	c := &cobra.Command{
		Use: "status", Short: "Show both slots, and the current or last upgrade", Args: exactArgs(0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			node, err := env.Client()
			if err != nil {
				return err
			}
			resp, err := node.Upgrades.Status(c.Context(), connect.NewRequest(&pb.UpgradeStatusRequest{}))
			if err != nil {
				return err
			}
			return listing{resp.Msg, nil, func(w io.Writer, _ bool) error { return printUpgradeStatus(w, resp.Msg) }}.print(env.Out, *output)
		},
	}
	output = addReportOutput(c)
	return c
}

func printUpgradeStatus(out io.Writer, m *pb.UpgradeStatusResponse) error {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	for _, s := range m.Slots {
		fmt.Fprintf(w, "Slot %s\t%s\n", printable.Text(s.Slot), slotText(s))
	}
	if m.Problem != "" {
		fmt.Fprintf(w, "Slots\t%s\n", printable.Text(m.Problem))
	}
	if u := m.Upgrade; u != nil {
		fmt.Fprintf(w, "Upgrade %d\t%s\n", u.Number, upgradeStage(u))
		if u.Stage == "failed" {
			fmt.Fprintf(w, "Failed stage\t%s\nReason\t%s\n", printable.Text(u.FailedStage), oneLine(u.Message))
		}
	}
	if u := m.Upgrade; u != nil {
		for _, f := range u.Files {
			from := " from the source"
			if f.Peer != "" {
				from = " from the peer " + printable.Text(f.Peer)
			}
			fmt.Fprintf(w, "Downloaded\t%s: %s%s\n", printable.Text(f.Name), printable.Bytes(f.Bytes), from)
		}
	}
	if h := m.Hold; h != nil {
		fmt.Fprintf(w, "Held\tby %s\n", whose(h))
	}
	if m.Pin != "" {
		fmt.Fprintf(w, "Pinned to\t%s\n", printable.Text(m.Pin))
	}
	if m.Floor != "" {
		fmt.Fprintf(w, "Oldest accepted\t%s\n", printable.Text(m.Floor))
	}
	if p := m.NoReturn; p != nil {
		fmt.Fprintf(w, "No return before\t%s: %s, by %s\n", printable.Text(m.NoReturnVersion), printable.Text(p.Name), whose(p))
	}
	for _, l := range m.Locks {
		until := ""
		if l.Until != nil {
			until = ", until " + l.Until.AsTime().Local().Format(time.DateTime)
		}
		fmt.Fprintf(w, "Lock %s\tby %s%s\n", printable.Text(l.Name), whose(l), until)
	}
	for _, r := range m.Refused {
		fmt.Fprintf(w, "Refused %s\t%s\n", printable.Text(r.Version), oneLine(r.Reason))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if m.Upgrade != nil && m.Upgrade.Stage == "failed" {
		printUpgradeLog(out, m.Upgrade)
	}
	return nil
}

// slotText says what a slot holds.
func slotText(s *pb.SlotVersion) string {
	if s.Version == "" {
		return "nothing bootable"
	}
	text := fmt.Sprintf("%s, %s", s.Version, s.Health)
	if s.Health == "trial" {
		text += fmt.Sprintf(" with %d tries left", s.TriesLeft)
	}
	if s.Running {
		text += ", running"
	}
	return printable.Text(text + ", kernel " + s.Kernel)
}

func newUpgradeHistoryCommand(env *Env) *cobra.Command {
	var output *string
	c := &cobra.Command{
		Use: "history", Short: "List finished upgrades, newest first", Args: exactArgs(0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			node, err := env.Client()
			if err != nil {
				return err
			}
			resp, err := node.Upgrades.History(c.Context(), connect.NewRequest(&pb.UpgradeHistoryRequest{}))
			if err != nil {
				return err
			}
			name := func(u *pb.Upgrade) string { return fmt.Sprint(u.Number) }
			return listOf(resp.Msg.Upgrades, name, "NUMBER\tENDED\tFROM\tTO\tOUTCOME\tBY\tWHY", func(u *pb.Upgrade, _ bool) string {
				outcome := u.Stage
				if u.FailedStage != "" {
					outcome += " at stage " + u.FailedStage
				}
				return fmt.Sprintf("%d\t%s\t%s\t%s\t%s\t%s\t%s", u.Number, u.Ended.AsTime().Local().Format(time.DateTime), orDash(u.From), orDash(u.To), outcome, orDash(u.By), orDash(oneLine(u.Message)))
			}).print(env.Out, *output)
		},
	}
	output = addOutput(c)
	return c
}

// whose says who made a lock, and why where that was said.
func whose(l *pb.UpgradeLock) string {
	if l.Reason == "" {
		return printable.Text(l.By)
	}
	return printable.Text(l.By + ": " + l.Reason)
}
