package cli

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"oscine.dev/oscine/internal/api/oscinepb"
	"oscine.dev/oscine/internal/client"
	"oscine.dev/oscine/internal/machine"
	"oscine.dev/oscine/internal/object"
)

// completionWait bounds how long the shell waits for the names of a node.
const completionWait = 2 * time.Second

// completeTarget offers KIND and then NAME, of the objects that there are. A
// node that does not answer offers no names.
func completeTarget(env *Env) cobra.CompletionFunc {
	return func(c *cobra.Command, args []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
		var offered []cobra.Completion
		switch len(args) {
		case 0:
			for _, row := range env.Kinds.Stored() {
				if word := row.Word(); strings.HasPrefix(word, begun) {
					offered = append(offered, word)
				}
			}
		case 1:
			kind, _, err := env.parseTarget(args)
			if err != nil {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			for _, name := range objectNames(c.Context(), env, kind) {
				if strings.HasPrefix(name, begun) {
					offered = append(offered, name)
				}
			}
		}
		return offered, cobra.ShellCompDirectiveNoFileComp
	}
}

// completeContext offers the contexts of the client configuration.
func completeContext(env *Env) cobra.CompletionFunc {
	return func(_ *cobra.Command, _ []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
		path, err := env.configPath()
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		config, err := client.Load(path)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		names := slices.Sorted(maps.Keys(config.Contexts))
		names = slices.DeleteFunc(names, func(name string) bool { return !strings.HasPrefix(name, begun) })
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

func objectNames(ctx context.Context, env *Env, kind string) []string {
	node, err := env.Client()
	if err != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, completionWait)
	defer cancel()
	resp, err := node.Objects.Get(ctx, connect.NewRequest(&oscinepb.GetRequest{Kind: kind}))
	if err != nil {
		return nil
	}
	var names []string
	for _, obj := range resp.Msg.Objects {
		names = append(names, obj.Name)
	}
	return names
}

// completeNames offers names for the first argument, each with an ending.
func completeNames(ending string, names func(ctx context.Context) []string) cobra.CompletionFunc {
	return func(c *cobra.Command, args []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var offered []cobra.Completion
		for _, name := range names(c.Context()) {
			if strings.HasPrefix(name, begun) {
				offered = append(offered, name+ending)
			}
		}
		return offered, cobra.ShellCompDirectiveNoFileComp
	}
}

// completeObject offers the names of the objects of one kind.
func completeObject(env *Env, kind object.Kind) cobra.CompletionFunc {
	return completeNames("", func(ctx context.Context) []string { return objectNames(ctx, env, string(kind)) })
}

// completeMachine offers the local machines.
func completeMachine() cobra.CompletionFunc {
	return completeNames("", func(context.Context) []string {
		machines, err := machine.List("")
		if err != nil {
			return nil
		}
		var names []string
		for _, m := range machines {
			names = append(names, m.Name())
		}
		return names
	})
}

// completeListed offers what a call to the node lists.
func completeListed(env *Env, list func(ctx context.Context, node *client.Client) ([]string, error)) cobra.CompletionFunc {
	return completeNames("", func(ctx context.Context) []string {
		node, err := env.Client()
		if err != nil {
			return nil
		}
		ctx, cancel := context.WithTimeout(ctx, completionWait)
		defer cancel()
		names, err := list(ctx, node)
		if err != nil {
			return nil
		}
		return names
	})
}

// completeValues has the shell offer the values that a flag may have.
func completeValues[T ~string](c *cobra.Command, flag string, values ...T) {
	offered := make([]cobra.Completion, len(values))
	for i, v := range values {
		offered[i] = string(v)
	}
	_ = c.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(offered, cobra.ShellCompDirectiveNoFileComp)) // fails for an unknown flag only
}

// completeModelThenFiles offers a model, and then files.
func completeModelThenFiles(env *Env) cobra.CompletionFunc {
	models := completeObject(env, object.KindModel)
	return func(c *cobra.Command, args []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveDefault
		}
		return models(c, args, begun)
	}
}
