package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	pb "oscine.dev/oscine/internal/api/oscinepb"
	"oscine.dev/oscine/internal/client"
	"oscine.dev/oscine/internal/object"
)

func newStopCommand(env *Env) *cobra.Command {
	return newLifecycleCommand(env, &cobra.Command{
		Use: "stop NAME...", Short: "Stop workloads and models, and keep them for oscine start",
		Long: `Stop workloads and models, wait until they have ended, and keep their objects: they
show as Stopped and release their part of the machine, also after a
restart of the node, until oscine start, restart or apply. Volumes and logs stay.`,
		Example: "  oscine stop web\n  oscine stop workload/web model/digits",
	}, "stopped", func(ctx context.Context, node *client.Client, key object.Key) error {
		_, err := node.Objects.Stop(ctx, connect.NewRequest(&pb.StopRequest{Kind: string(key.Kind), Name: key.Name}))
		if err != nil {
			return err
		}
		name := objectName(string(key.Kind), key.Name)
		wait := newWaiting(env, name+" stops")
		defer wait.done()
		return awaitPhase(ctx, env, node, key, func(st *object.Observed) bool {
			wait.tell(waitsFor(key, st))
			return st.Phase == object.Stopped
		})
	})
}

func newStartCommand(env *Env) *cobra.Command {
	return newLifecycleCommand(env, &cobra.Command{
		Use: "start NAME...", Short: "Start workloads and models that were stopped or have ended",
		Long: `Start workloads and models that were stopped or have ended; those that already run are left alone.
It returns before they run: see oscine wait and oscine get.`,
		Example: "  oscine start web\n  oscine start web && oscine wait workload/web --for phase=Running",
	}, "starts", func(ctx context.Context, node *client.Client, key object.Key) error {
		_, err := node.Objects.Start(ctx, connect.NewRequest(&pb.StartRequest{Kind: string(key.Kind), Name: key.Name}))
		return err
	})
}

func newRestartCommand(env *Env) *cobra.Command {
	return newLifecycleCommand(env, &cobra.Command{
		Use: "restart NAME...", Short: "Stop workloads and models and start them again now",
		Long: `Stop workloads and models and start them again now, from the same manifests. It returns
before they run again: see oscine wait and oscine get.`,
		Example: "  oscine restart web\n  oscine restart model/digits",
	}, "restarts", func(ctx context.Context, node *client.Client, key object.Key) error {
		_, err := node.Objects.Restart(ctx, connect.NewRequest(&pb.RestartRequest{Kind: string(key.Kind), Name: key.Name}))
		return err
	})
}

// newLifecycleCommand completes a command that does something to each of the
// objects that it names, also where it fails for one.
func newLifecycleCommand(env *Env, c *cobra.Command, done string, do func(context.Context, *client.Client, object.Key) error) *cobra.Command {
	c.ValidArgsFunction = completeRunning(env)
	c.Args = rangeArgs(1, 1000, "NAME..., KIND NAME... or KIND/NAME...")
	c.RunE = func(c *cobra.Command, args []string) error {
		targets, err := env.parseRunning(args)
		if err != nil {
			return err
		}
		node, err := env.Client()
		if err != nil {
			return err
		}
		if err := nameKinds(c.Context(), env, node, targets); err != nil {
			return err
		}
		var errs []error
		for _, key := range targets {
			if err := do(c.Context(), node, key); err != nil {
				errs = append(errs, err)
				continue
			}
			fmt.Fprintf(env.Out, "%s %s\n", objectName(string(key.Kind), key.Name), done)
		}
		return joined(errs)
	}
	return c
}

// parseRunning reads NAME..., KIND NAME... or KIND/NAME...; a name alone has no
// kind yet.
func (e *Env) parseRunning(args []string) ([]object.Key, error) {
	if _, isKind := e.Kinds.Stored().ByWord(args[0]); isKind {
		return e.parseSeveral(args)
	}
	var keys []object.Key
	for _, arg := range args {
		kind, name, err := e.parseNamed([]string{arg})
		if err != nil {
			return nil, err
		}
		keys = append(keys, object.Key{Kind: object.Kind(kind), Name: name})
	}
	return keys, nil
}

// nameKinds finds the kinds of names that came alone.
func nameKinds(ctx context.Context, env *Env, node *client.Client, keys []object.Key) error {
	for i, key := range keys {
		if key.Kind != "" {
			continue
		}
		kinds, err := kindsOf(ctx, env, node, key.Name)
		if err != nil {
			return err
		}
		if len(kinds) > 1 {
			return usageError{fmt.Errorf("several objects are named %s: write %s", key.Name, strings.ToLower(string(kinds[0]))+"/"+key.Name+" or "+strings.ToLower(string(kinds[1]))+"/"+key.Name)}
		}
		keys[i].Kind = kinds[0]
	}
	return nil
}

// kindsOf are the kinds of the objects of a name for which something runs, at
// least one, in order.
func kindsOf(ctx context.Context, env *Env, node *client.Client, name string) ([]object.Kind, error) {
	resp, err := node.Objects.Get(ctx, connect.NewRequest(&pb.GetRequest{Name: name}))
	if err != nil {
		return nil, err
	}
	var kinds []object.Kind
	for _, obj := range resp.Msg.Objects {
		if row, known := env.Kinds.Find(object.Kind(obj.Kind)); known && !row.Passive {
			kinds = append(kinds, row.Kind)
		}
	}
	if len(kinds) == 0 {
		return nil, missing{fmt.Errorf("no workload or model is named %q: see oscine get", name)}
	}
	return kinds, nil
}

// completeRunning offers the names of workloads and models that are not given
// yet.
func completeRunning(env *Env) cobra.CompletionFunc {
	return func(c *cobra.Command, args []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
		var offered []cobra.Completion
		for _, row := range env.Kinds.Stored() {
			if row.Passive {
				continue
			}
			for _, name := range objectNames(c.Context(), env, string(row.Kind)) {
				if strings.HasPrefix(name, begun) && !slices.Contains(args, name) && !slices.Contains(offered, name) {
					offered = append(offered, name)
				}
			}
		}
		return offered, cobra.ShellCompDirectiveNoFileComp
	}
}
