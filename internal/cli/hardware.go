package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"gopkg.in/yaml.v3"

	"oscine.dev/oscine/internal/api/oscinepb"
	"oscine.dev/oscine/internal/client"
	"oscine.dev/oscine/internal/hardware"
)

// hardwareFlags are the flags of oscine hardware.
type hardwareFlags struct {
	root, output string
}

func newHardwareCommand(env *Env) *cobra.Command {
	var f hardwareFlags
	c := &cobra.Command{
		Use:   "hardware",
		Short: "Show the map of a machine: cores, caches, memory, devices and the links between them",
		Long: `Show the map of a machine.

With a context the map is the node's. Without one, or with --root /, it is this
machine's. --root also reads a directory that holds the sys and proc of another
machine, or an archive of one as oscine hardware record makes it.`,
		Args: exactArgs(0, "no argument"),
		RunE: func(c *cobra.Command, _ []string) error {
			m, err := f.machine(c.Context(), env)
			if err != nil {
				return err
			}
			return writeHardware(env.Out, m, f.output)
		},
	}
	c.PersistentFlags().StringVar(&f.root, "root", "", "read the machine under this directory or archive; / is this machine")
	c.Flags().StringVarP(&f.output, "output", "o", "tree", strings.Join(hardwareOutputs(), ", "))
	return c
}

func hardwareOutputs() []string { return []string{"tree", "wide", "json", "yaml"} }

// machine reads the map from --root, from the node of the context, or from
// this machine where there is no context.
func (f *hardwareFlags) machine(ctx context.Context, env *Env) (*hardware.Machine, error) {
	if f.root != "" {
		return hardware.Discover(f.root)
	}
	node, err := env.Client()
	if env.Context == "" && (errors.Is(err, client.ErrNoContext)) {
		return hardware.Discover("/")
	}
	if err != nil {
		return nil, err
	}
	reply, err := node.Hardware(ctx, connect.NewRequest(&oscinepb.HardwareRequest{}))
	if err != nil {
		return nil, err
	}
	return hardware.Decode(reply.Msg.GetJson())
}

// writeHardware prints a map in one of the output formats.
func writeHardware(w io.Writer, m *hardware.Machine, output string) error {
	switch output {
	case "tree", "wide":
		return hardware.WriteTree(w, m, output == "wide")
	case "json":
		data, err := hardware.Encode(m)
		if err != nil {
			return err
		}
		_, err = w.Write(data)
		return err
	case "yaml":
		return writeHardwareYAML(w, m)
	}
	return usageError{fmt.Errorf("unknown output %q: choose one of %s", output, strings.Join(hardwareOutputs(), ", "))}
}

// writeHardwareYAML prints the JSON document as YAML: same names, same order.
func writeHardwareYAML(w io.Writer, m *hardware.Machine) error {
	data, err := hardware.Encode(m)
	if err != nil {
		return err
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		return fmt.Errorf("convert to YAML: %w", err)
	}
	plainStyle(&doc)
	enc := yaml.NewEncoder(w)
	enc.SetIndent(2)
	if err := enc.Encode(&doc); err != nil {
		return fmt.Errorf("write YAML: %w", err)
	}
	return enc.Close()
}

// plainStyle drops JSON's braces and quotes where YAML needs none. Strings
// that would read as numbers keep their quotes.
func plainStyle(n *yaml.Node) {
	if n.Kind != yaml.ScalarNode || !slices.Contains([]string{"!!str"}, n.Tag) {
		n.Style = 0
	} else if n.Value != "" && strings.Trim(n.Value, "0123456789,-_.:+eExXabcdefABCDEF") != "" {
		n.Style = 0
	}
	for _, child := range n.Content {
		plainStyle(child)
	}
}
