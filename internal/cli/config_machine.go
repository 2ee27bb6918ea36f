package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"text/tabwriter"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	pb "oscine.dev/oscine/internal/api/oscinepb"
	"oscine.dev/oscine/internal/client"
	"oscine.dev/oscine/internal/configuration"
	"oscine.dev/oscine/internal/printable"
)

// machineOptions are the choices of changing a node's Machine.
type machineOptions struct {
	dryRun    bool
	trial     time.Duration
	noConfirm bool
}

func (o *machineOptions) add(c *cobra.Command) {
	c.Flags().DurationVar(&o.trial, "trial", configuration.DefaultTrial, "for a Machine: roll the change back unless it is confirmed within this time")
	c.Flags().BoolVar(&o.noConfirm, "no-confirm", false, "for a Machine: do not confirm the change; run oscine config confirm yourself")
}

// changeMachine sends a node another Machine, and confirms it once the node answers with it.
func changeMachine(ctx context.Context, env *Env, req *pb.ApplyConfigurationRequest, o machineOptions) error {
	if o.trial < configuration.MinTrial || o.trial > configuration.MaxTrial {
		return usageError{fmt.Errorf("--trial %s: must be from %s to %s", o.trial, configuration.MinTrial, configuration.MaxTrial)}
	}
	node, err := env.Client()
	if err != nil {
		return err
	}
	req.DryRun, req.TrialSeconds = o.dryRun, int64(o.trial/time.Second)
	resp, err := node.Configuration.Apply(ctx, connect.NewRequest(req))
	if err != nil {
		return err
	}
	m := resp.Msg
	if len(m.Changes) == 0 {
		fmt.Fprintf(env.Out, "machine unchanged (revision %d)\n", m.Revision)
		return nil
	}
	printChanges(env.Out, m.Changes)
	if o.dryRun {
		fmt.Fprintln(env.Out, "these changes would take effect within seconds: the daemon restarts, workloads and models keep running (dry run)")
		return nil
	}
	if o.noConfirm {
		fmt.Fprintf(env.Out, "machine changed on trial (revision %d): run oscine config confirm to keep it, or it is rolled back in %s\n", m.Revision, o.trial)
		return nil
	}
	if err := confirmMachine(ctx, env, m.Revision, o.trial); err != nil {
		return err
	}
	fmt.Fprintf(env.Out, "machine changed (revision %d)\n", m.Revision)
	return nil
}

// confirmMachine confirms over a connection of its own, so that a node that is no longer reached returns to what it was.
func confirmMachine(ctx context.Context, env *Env, revision int64, within time.Duration) error {
	w := newWaiting(env, "config")
	defer w.done()
	w.tell("the node's daemon is restarting")
	deadline := time.Now().Add(within)
	for {
		err := tryConfirm(ctx, env, revision)
		switch code := connect.CodeOf(err); {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return fmt.Errorf("interrupted before revision %d was confirmed: run oscine config confirm to keep it, or the node rolls it back", revision)
		case code == connect.CodeFailedPrecondition:
			return fmt.Errorf("the node has rolled revision %d back: see oscine config history: %w", revision, err)
		case code == connect.CodePermissionDenied || code == connect.CodeUnauthenticated:
			return err
		case time.Now().After(deadline):
			return fmt.Errorf("the node did not answer with its new Machine within %s, and rolls it back: see oscine config history: %w", within, err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(500 * time.Millisecond):
		}
	}
}

func tryConfirm(ctx context.Context, env *Env, revision int64) error {
	node, err := env.Client()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	_, err = node.Configuration.Confirm(ctx, connect.NewRequest(&pb.ConfirmConfigurationRequest{Revision: revision}))
	return err
}

func printChanges(w io.Writer, changes []*pb.ConfigurationChange) {
	for _, c := range changes {
		switch {
		case c.From == "":
			fmt.Fprintf(w, "+ %s: %s\n", printable.Text(c.Path), printable.Text(c.To))
		case c.To == "":
			fmt.Fprintf(w, "- %s: %s\n", printable.Text(c.Path), printable.Text(c.From))
		default:
			fmt.Fprintf(w, "~ %s: %s → %s\n", printable.Text(c.Path), printable.Text(c.From), printable.Text(c.To))
		}
	}
}

func newConfigShowCommand(env *Env) *cobra.Command {
	c := &cobra.Command{
		Use: "show [REVISION]", Short: "Print a node's Machine, without its secrets", Args: rangeArgs(0, 1, "at most a REVISION"),
		Long: `Print the node's Machine manifest, or an earlier one, as YAML. The node's identity
is left out, and stays unchanged when the manifest is applied again.`,
		Example: "  oscine config show > node.yaml\n  oscine apply -f node.yaml --dry-run",
		RunE: func(c *cobra.Command, args []string) error {
			number := 0
			if len(args) == 1 {
				var err error
				if number, err = parseRevision(args[0]); err != nil {
					return err
				}
			}
			node, err := env.Client()
			if err != nil {
				return err
			}
			resp, err := node.Configuration.Get(c.Context(), connect.NewRequest(&pb.GetConfigurationRequest{Revision: int64(number)}))
			if err != nil {
				return err
			}
			text, err := structYAML(resp.Msg.Manifest)
			if err != nil {
				return err
			}
			if n := resp.Msg.OnTrial; n != 0 {
				fmt.Fprintf(env.Err, "oscine: revision %d is on trial: oscine config confirm keeps it\n", n)
			}
			_, err = env.Out.Write(text)
			return err
		},
	}
	return c
}

func parseRevision(text string) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		return 0, usageError{fmt.Errorf("%q is not the number of a revision: see oscine config history", text)}
	}
	return n, nil
}

func newConfigHistoryCommand(env *Env) *cobra.Command {
	var output *string
	c := &cobra.Command{
		Use: "history", Short: "List the revisions of the node's Machine, newest first", Args: exactArgs(0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			node, err := env.Client()
			if err != nil {
				return err
			}
			resp, err := node.Configuration.History(c.Context(), connect.NewRequest(&pb.ConfigurationHistoryRequest{}))
			if err != nil {
				return err
			}
			return listing{resp.Msg, nil, func(w io.Writer, _ bool) error { return printHistory(w, resp.Msg) }}.print(env.Out, *output)
		},
	}
	output = addReportOutput(c)
	return c
}

func printHistory(out io.Writer, m *pb.ConfigurationHistoryResponse) error {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "REVISION\tAT\tBY\tCHANGES\tNOTE")
	for i, r := range m.Revisions {
		note := r.Note
		switch {
		case r.Number == m.OnTrial:
			note = "on trial"
		case i == 0 && note == "":
			note = "in use"
		}
		fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\n", r.Number, r.At.AsTime().Local().Format(time.DateTime), printable.Text(r.By), changesText(r.Changes), printable.Text(note))
	}
	return w.Flush()
}

func changesText(changes []*pb.ConfigurationChange) string {
	switch len(changes) {
	case 0:
		return "-"
	case 1:
		return printable.Text(changes[0].Path)
	}
	return fmt.Sprintf("%s and %d more", printable.Text(changes[0].Path), len(changes)-1)
}

func newConfigRollbackCommand(env *Env) *cobra.Command {
	var o machineOptions
	c := &cobra.Command{
		Use: "rollback REVISION", Short: "Roll the node back to an earlier Machine", Args: exactArgs(1, "REVISION"),
		Example: "  oscine config history\n  oscine config rollback 3 --dry-run",
		RunE: func(c *cobra.Command, args []string) error {
			number, err := parseRevision(args[0])
			if err != nil {
				return err
			}
			return changeMachine(c.Context(), env, &pb.ApplyConfigurationRequest{What: &pb.ApplyConfigurationRequest_Revision{Revision: int64(number)}}, o)
		},
	}
	c.Flags().BoolVar(&o.dryRun, "dry-run", false, "show what would change")
	o.add(c)
	return c
}

func newConfigConfirmCommand(env *Env) *cobra.Command {
	return &cobra.Command{
		Use: "confirm", Short: "Keep a Machine that is on trial", Args: exactArgs(0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			node, err := env.Client()
			if err != nil {
				return err
			}
			revision, err := onTrial(c.Context(), node)
			if err != nil {
				return err
			}
			if _, err := node.Configuration.Confirm(c.Context(), connect.NewRequest(&pb.ConfirmConfigurationRequest{Revision: revision})); err != nil {
				return err
			}
			fmt.Fprintf(env.Out, "revision %d is kept\n", revision)
			return nil
		},
	}
}

func onTrial(ctx context.Context, node *client.Client) (int64, error) {
	resp, err := node.Configuration.History(ctx, connect.NewRequest(&pb.ConfigurationHistoryRequest{}))
	if err != nil {
		return 0, err
	}
	if resp.Msg.OnTrial == 0 {
		return 0, errors.New("no change of the Machine is on trial: see oscine config history")
	}
	return resp.Msg.OnTrial, nil
}
