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
