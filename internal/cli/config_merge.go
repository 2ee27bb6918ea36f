package cli

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"oscine.dev/oscine/internal/client"
)

func newConfigMergeCommand(env *Env) *cobra.Command {
	var force bool
	c := &cobra.Command{
		Use: "merge FILE", Short: "Add the contexts of another client configuration to yours", Args: exactArgs(1, "FILE"),
		Long: `Add the contexts of another client configuration, such as one that
oscine config credentials wrote for you, to yours. If yours has a context of the
same name with other content, nothing is added unless --force replaces it.
The current context stays; if there is none, the file's becomes current.`,
		Example: "  oscine config merge bob.config\n  oscine config use edge1",
		RunE: func(_ *cobra.Command, args []string) error {
			if _, err := os.Stat(args[0]); err != nil {
				return unreadable(args[0], err)
			}
			from, err := client.Load(args[0])
			if err != nil {
				return err
			}
			if len(from.Contexts) == 0 {
				return fmt.Errorf("%s holds no context: it is not a client configuration", args[0])
			}
			return env.editConfig(func(config *client.Config) error { return mergeContexts(env, config, from, force) })
		},
	}
	c.Flags().BoolVar(&force, "force", false, "replace contexts of the same name")
	return c
}

// mergeContexts adds the contexts of from to config, all or none.
func mergeContexts(env *Env, config, from *client.Config, force bool) error {
	type change struct{ name, did string }
	var changes []change
	var refused []error
	for _, name := range from.Names() {
		did := "added"
		if mine, ok := config.Contexts[name]; ok {
			did = "replaced"
			switch {
			case *mine == *from.Contexts[name]:
				did = "there already"
			case !force:
				refused = append(refused, fmt.Errorf("context %q is there already with other content: replace it with --force, or delete it with oscine config delete %s", name, name))
			}
		}
		changes = append(changes, change{name, did})
	}
	if len(refused) > 0 {
		return errors.Join(append(refused, errors.New("nothing was changed"))...)
	}
	current := config.Current
	for _, c := range changes {
		config.Set(c.name, from.Contexts[c.name])
		fmt.Fprintf(env.Out, "context %q %s\n", c.name, c.did)
	}
	config.Current = current
	if current == "" {
		config.Current = from.Current
	}
	if config.Contexts[config.Current] == nil {
		config.Current = ""
		fmt.Fprintln(env.Err, "no context is current: choose one with oscine config use")
	} else if current == "" {
		fmt.Fprintf(env.Out, "context %q is the current one now\n", config.Current)
	}
	return nil
}
