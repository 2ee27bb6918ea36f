package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// strict makes a word that names no command an error, which names the nearest
// one, for a command and all below it. cobra prints help instead and succeeds.
func strict(c *cobra.Command) {
	for _, child := range c.Commands() {
		strict(child)
	}
	if !c.HasSubCommands() {
		return
	}
	own := c.Args
	c.Args = func(c *cobra.Command, args []string) error {
		switch {
		case len(args) == 0:
			return nil
		case own != nil && strings.ContainsAny(args[0], "/:"):
			return own(c, args) // a path or a URL, which no command is
		}
		return unknownCommand(c, args[0])
	}
	if !c.Runnable() {
		c.RunE = func(c *cobra.Command, _ []string) error { return c.Help() }
	}
}

func unknownCommand(c *cobra.Command, word string) error {
	c.SuggestionsMinimumDistance = 2
	advice := ""
	if near := c.SuggestionsFor(word); len(near) > 0 {
		advice = ": do you mean " + strings.Join(near, " or ") + "?"
	}
	return usageError{fmt.Errorf("%s has no command %q%s; see %s --help", c.CommandPath(), word, advice, c.CommandPath())}
}

// newHelpCommand is cobra's, except for what names no command.
func newHelpCommand(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use: "help [COMMAND]", Short: "Help about any command",
		ValidArgsFunction: func(c *cobra.Command, args []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
			var offered []cobra.Completion
			if of, _, err := root.Find(args); err == nil {
				for _, child := range of.Commands() {
					if child.IsAvailableCommand() && strings.HasPrefix(child.Name(), begun) {
						offered = append(offered, cobra.CompletionWithDesc(child.Name(), child.Short))
					}
				}
			}
			return offered, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(_ *cobra.Command, args []string) error {
			of, rest, err := root.Find(args)
			if err == nil && len(rest) > 0 && of.HasSubCommands() {
				return unknownCommand(of, rest[0])
			}
			if err != nil {
				return err
			}
			of.InitDefaultHelpFlag()
			return of.Help()
		},
	}
}
