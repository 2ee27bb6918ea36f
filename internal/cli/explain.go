package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"oscine.dev/oscine/internal/object/explain"
)

func newExplainCommand(env *Env) *cobra.Command {
	var recursive, example bool
	c := &cobra.Command{
		Use:   "explain KIND[.FIELD...]",
		Short: "Tell what a manifest may hold: each field, its type, default and bounds",
		Long: `Tell what a manifest may hold: the fields of a kind or below one of its fields,
with type, default, bounds and meaning. The leading spec may be left out. It asks
no node; docs/manifests.md is the same for all kinds.`,
		Example: "  oscine explain workload\n  oscine explain workload.spec.health.interval\n  oscine explain model.resources --recursive\n  oscine explain workload --example > web.yaml",
		Args:    exactArgs(1, "KIND or KIND.FIELD"), ValidArgsFunction: completeField(env),
		RunE: func(_ *cobra.Command, args []string) error {
			words := strings.Split(args[0], ".")
			row, ok := env.Kinds.ByWord(words[0])
			if !ok {
				return usageError{fmt.Errorf("no kind is called %q: use %s", words[0], env.Kinds.Words())}
			}
			if example {
				text, err := explain.Example(row)
				if err == nil {
					_, err = fmt.Fprint(env.Out, text)
				}
				return err
			}
			root, err := explain.Kind(env.Kinds, row)
			if err != nil {
				return err
			}
			field, err := root.Find(words[1:])
			if err != nil {
				return usageError{fmt.Errorf("%s: %w", args[0], err)}
			}
			return field.Write(env.Out, row.Kind, recursive)
		},
	}
	c.Flags().BoolVar(&recursive, "recursive", false, "list all fields below too")
	c.Flags().BoolVar(&example, "example", false, "print a manifest of the kind to begin with")
	return c
}

// completeField offers kinds, and after KIND. the fields.
func completeField(env *Env) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
		const directive = cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
		if len(args) > 0 {
			return nil, directive
		}
		var offered []cobra.Completion
		offer := func(word, about string) {
			if strings.HasPrefix(word, begun) {
				offered = append(offered, cobra.CompletionWithDesc(word, about))
			}
		}
		cut := strings.LastIndex(begun, ".")
		if cut < 0 {
			for i := range env.Kinds {
				offer(env.Kinds[i].Word(), "")
			}
			return offered, directive
		}
		words := strings.Split(begun[:cut], ".")
		row, ok := env.Kinds.ByWord(words[0])
		if !ok {
			return nil, directive
		}
		root, err := explain.Kind(env.Kinds, row)
		if err != nil {
			return nil, directive
		}
		if field, err := root.Find(words[1:]); err == nil {
			for _, f := range field.Fields {
				offer(begun[:cut+1]+f.Name, f.Facts())
			}
		}
		return offered, directive
	}
}
