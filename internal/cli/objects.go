package cli

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	pb "oscine.dev/oscine/internal/api/oscinepb"
	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/printable"
)

func newApplyCommand(env *Env) *cobra.Command {
	var file string
	var displace bool
	var machine machineOptions
	c := &cobra.Command{
		Use: "apply -f FILE", Short: "Create or change the objects of a manifest, or the node's Machine", Args: exactArgs(0, ""),
		Long: `Create or change the objects of a manifest, all of them or none.

Each is told with the part of the machine that it gets, whom it displaces, and
why it gets none: then it waits for room. Batch work gives way to other classes
and to a higher priority; work of the classes realtime and interactive only with
--displace. --dry-run changes nothing and prints the same.

A Machine, alone in its manifest, changes the node itself: its network, classes,
ports and so on. The daemon restarts with it, workloads and models keep running, and
this command confirms the change as soon as the node answers. A node that cannot
be reached any more, or does not work with it, returns to its previous Machine.`,
		RunE: func(c *cobra.Command, _ []string) error {
			text, err := readFileOrStdin(env, file)
			if err != nil {
				return err
			}
			// Checked here too, so that mistakes are reported without a node.
			objects, err := env.Kinds.Parse(strings.NewReader(string(text)))
			if err != nil {
				return fmt.Errorf("%s is not valid, nothing was applied:\n%w", file, err)
			}
			if loneMachine(objects) {
				return changeMachine(c.Context(), env, &pb.ApplyConfigurationRequest{What: &pb.ApplyConfigurationRequest_Manifest{Manifest: string(text)}}, machine)
			}
			node, err := env.Client()
			if err != nil {
				return err
			}
			resp, err := node.Objects.Apply(c.Context(), connect.NewRequest(&pb.ApplyRequest{Manifest: string(text), DryRun: machine.dryRun, Displace: displace}))
			if err != nil {
				return err
			}
			return printResults(env.Out, resp.Msg.Results, machine.dryRun)
		},
	}
	c.Flags().StringVarP(&file, "file", "f", "", "manifest, - for standard input")
	c.Flags().BoolVar(&machine.dryRun, "dry-run", false, "check and say what would be done")
	c.Flags().BoolVar(&displace, "displace", false, displaceHelp)
	machine.add(c)
	_ = c.MarkFlagRequired("file")
	return c
}

// loneMachine reports a manifest that is for the node itself.
func loneMachine(objects []object.Object) bool {
	return len(objects) == 1 && objects[0].Key().Kind == object.KindMachine
}

// printResults prints what became of each object of a manifest, or would.
func printResults(w io.Writer, results []*pb.ApplyResult, dryRun bool) error {
	suffix := ""
	if dryRun {
		suffix = " (dry run)"
	}
	for _, r := range results {
		became, err := placedOf(r)
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "%s %s%s\n", objectName(r.Kind, r.Name), r.Action, suffix)
		if became.Placement != nil {
			fmt.Fprintf(w, "  on %s\n", describePlacement(became.Placement))
		}
		for _, d := range became.Displaces {
			fmt.Fprintf(w, "  displaces %s: %s\n", d.Object, printable.Text(d.Why))
		}
		if r.Unplaced != "" {
			fmt.Fprintf(w, "  waits: %s\n", printable.Text(r.Unplaced))
		}
	}
	return nil
}

// tellDisplaced tells who had to make room.
func tellDisplaced(w io.Writer, results []*pb.ApplyResult) {
	for _, r := range results {
		for _, d := range r.Displaces {
			fmt.Fprintf(w, "oscine: %s displaces %s: %s\n", objectName(r.Kind, r.Name), objectName(d.Kind, d.Name), printable.Text(d.Why))
		}
	}
}

// parseTarget reads KIND [NAME] or KIND/NAME.
func (e *Env) parseTarget(args []string) (kind, name string, err error) {
	if len(args) == 0 {
		return "", "", nil
	}
	word, rest, slash := strings.Cut(args[0], "/")
	switch {
	case slash && len(args) > 1:
		return "", "", usageError{fmt.Errorf("write KIND/NAME or KIND NAME, not both")}
	case slash:
		name = rest
	case len(args) > 1:
		name = args[1]
	}
	switch strings.ToLower(word) {
	case "all":
		return "", name, nil
	case "event", "events":
		return "", "", usageError{errors.New("events have a command of their own: oscine events, or oscine describe KIND NAME for those of one object")}
	}
	row, ok := e.Kinds.ByWord(word)
	switch {
	case !ok:
		return "", "", usageError{fmt.Errorf("no kind is called %q: use %s", word, e.Kinds.Stored().Words())}
	case !row.Stored():
		return "", "", usageError{errors.New(row.NotApplied)}
	}
	return string(row.Kind), name, nil
}

// parseNamed reads NAME, of whatever kind, KIND NAME or KIND/NAME.
func (e *Env) parseNamed(args []string) (kind, name string, err error) {
	kind, name, err = e.parseTarget(args)
	if len(args) != 1 || strings.Contains(args[0], "/") {
		return kind, name, err
	}
	if err == nil { // a kind alone
		return "", "", usageError{fmt.Errorf("needs a name: %s NAME", args[0])}
	}
	if _, ok := e.Kinds.ByWord(args[0]); ok {
		return "", "", err // a kind that the node does not store
	}
	return "", args[0], nil
}

func rangeArgs(least, most int, names string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) < least || len(args) > most {
			return usageError{fmt.Errorf("takes %s: %s", names, c.UseLine())}
		}
		return nil
	}
}
