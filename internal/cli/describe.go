package cli

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"oscine.dev/oscine/internal/api/oscinepb"
	"oscine.dev/oscine/internal/client"
	"oscine.dev/oscine/internal/printable"
)

func newDescribeCommand(env *Env) *cobra.Command {
	return &cobra.Command{
		Use: "describe [KIND] NAME", Short: "Show everything about one object: its placement and why, and what happened to it", ValidArgsFunction: completeTarget(env), Args: rangeArgs(1, 2, "NAME or KIND NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			kind, name, err := env.parseNamed(args)
			if err != nil {
				return err
			}
			node, err := env.Client()
			if err != nil {
				return err
			}
			resp, err := node.Objects.Get(c.Context(), connect.NewRequest(&oscinepb.GetRequest{Kind: kind, Name: name}))
			if err != nil {
				return err
			}
			for _, obj := range resp.Msg.Objects {
				if err := describe(env, obj); err != nil {
					return err
				}
				if err := describeEvents(c, env.Out, node, obj.Kind, obj.Name); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// describe prints an object's spec and status as trees, and what it was
// promised beside what is measured.
func describe(env *Env, obj *oscinepb.Object) error {
	state, err := client.State(env.Kinds, obj)
	if err != nil {
		return err
	}
	fmt.Fprintf(env.Out, "%s %s\n", obj.Kind, obj.Name)
	if err := printStruct(env.Out, "  ", "Spec", obj.GetManifest().GetFields()["spec"].GetStructValue()); err != nil {
		return err
	}
	status := &structpb.Struct{Fields: maps.Clone(obj.GetStatus().GetFields())}
	delete(status.Fields, "isolation")
	if err := printStruct(env.Out, "  ", "Status", status); err != nil {
		return err
	}
	if state.Status != nil && state.Status.Common().Isolation != nil {
		return printIsolation(env.Out, "    ", state.Status.Common().Isolation)
	}
	return nil
}

// printStruct prints what a node sent as a tree.
func printStruct(w io.Writer, indent, key string, s *structpb.Struct) error {
	if len(s.GetFields()) == 0 {
		return nil
	}
	raw, err := s.MarshalJSON()
	if err != nil {
		return err
	}
	return printJSONTree(w, indent, key, raw)
}

// printJSONTree prints a JSON object as indented lines, its keys in order.
func printJSONTree(w io.Writer, indent, key string, raw []byte) error {
	var doc yaml.Node
	if err := yaml.Unmarshal(raw, &doc); err != nil {
		return fmt.Errorf("%s is not understood: %w", key, err)
	}
	for _, root := range doc.Content {
		printTree(w, indent, key, root)
	}
	return nil
}

// printTree prints a value as indented lines in order of its keys, those of a
// mapping without a key of its own at the same indent.
func printTree(w io.Writer, indent, key string, n *yaml.Node) {
	switch n.Kind {
	case yaml.MappingNode:
		if len(n.Content) == 0 {
			return
		}
		if key != "" {
			fmt.Fprintf(w, "%s%s:\n", indent, printable.Text(key))
			indent += "  "
		}
		values := map[string]*yaml.Node{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			values[n.Content[i].Value] = n.Content[i+1]
		}
		for _, k := range slices.Sorted(maps.Keys(values)) {
			printTree(w, indent, k, values[k])
		}
	case yaml.SequenceNode:
		if line, ok := inline(n.Content); ok {
			fmt.Fprintf(w, "%s%s: %s\n", indent, key, line)
			return
		}
		fmt.Fprintf(w, "%s%s:\n", indent, key)
		for _, item := range n.Content {
			printTree(w, indent+"  ", "-", item)
		}
	default:
		fmt.Fprintf(w, "%s%s: %s\n", indent, key, strings.ReplaceAll(printable.Lines(n.Value), "\n", "\n"+indent+"  "))
	}
}

// inline writes a list of plain values on one line.
func inline(list []*yaml.Node) (line string, ok bool) {
	parts := make([]string, len(list))
	for i, item := range list {
		if item.Kind != yaml.ScalarNode {
			return "", false
		}
		parts[i] = printable.Text(item.Value)
	}
	return strings.Join(parts, ", "), true
}
