package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"oscine.dev/oscine/internal/api/oscinepb"
	"oscine.dev/oscine/internal/client"
	"oscine.dev/oscine/internal/durable"
	"oscine.dev/oscine/internal/hardware"
)

func newHardwareRecordCommand(env *Env, f *hardwareFlags) *cobra.Command {
	var output string
	c := &cobra.Command{
		Use:   "record",
		Short: "Save what the map of a machine is read from, for a bug report",
		Long: `Save what the map of a machine is read from, to attach to a bug report. With a
context the machine is the node's; without one, or with --root /, it is this one.

The archive holds only what was read, and no serial number, hardware address,
host name or cgroup name. oscine hardware --root FILE shows its map.`,
		Args: exactArgs(0, "no argument"),
		RunE: func(c *cobra.Command, _ []string) error {
			if !strings.HasSuffix(output, ".tar.zst") {
				return usageError{fmt.Errorf("--output %q must end in .tar.zst", output)}
			}
			if f.topology != "" {
				return usageError{errors.New("record reads a machine, not a --topology file")}
			}
			if err := checkOutput("output", output); err != nil {
				return err
			}
			record, err := f.recorder(c.Context(), env)
			if err != nil {
				return err
			}
			return recordHardware(env, record, output)
		},
	}
	c.Flags().StringVarP(&output, "output", "o", "machine.tar.zst", "file to write")
	return c
}

// recorder records the machine under --root, the context's node, or this
// machine where there is no context.
func (f *hardwareFlags) recorder(ctx context.Context, env *Env) (func(io.Writer) (hardware.Recorded, error), error) {
	local := func(root string) func(io.Writer) (hardware.Recorded, error) {
		return func(w io.Writer) (hardware.Recorded, error) { return hardware.Record(root, w) }
	}
	if f.root != "" {
		return local(f.root), rootIsThere("--root", f.root)
	}
	node, err := env.Client()
	if env.Context == "" && errors.Is(err, client.ErrNoContext) {
		return local("/"), nil
	}
	return func(w io.Writer) (hardware.Recorded, error) { return recordNode(ctx, node, w) }, err
}

// maxRecording bounds in bytes what is taken from a node.
const maxRecording = 256 << 20

func recordNode(ctx context.Context, node *client.Client, w io.Writer) (recorded hardware.Recorded, err error) {
	stream, err := node.Hardware.Record(ctx, connect.NewRequest(&oscinepb.RecordHardwareRequest{}))
	if err != nil {
		return recorded, err
	}
	defer stream.Close()
	size := 0
	for stream.Receive() {
		m := stream.Msg()
		if size += len(m.Data); size > maxRecording {
			return recorded, fmt.Errorf("the node's recording is larger than %d bytes", maxRecording)
		}
		if _, err := w.Write(m.Data); err != nil {
			return recorded, fmt.Errorf("record: %w", err)
		}
		recorded.Files = int(m.Files)
		for _, g := range m.LeftOut {
			recorded.LeftOut = append(recorded.LeftOut, hardware.Gap{Path: g.Path, Reason: g.Reason})
		}
	}
	if err := stream.Err(); err != nil {
		return recorded, err
	}
	if recorded.Files == 0 {
		return recorded, errors.New("the node's recording ended before it was whole: try again")
	}
	return recorded, nil
}

// recordHardware writes the archive whole or not at all.
func recordHardware(env *Env, record func(io.Writer) (hardware.Recorded, error), output string) error {
	var recorded hardware.Recorded
	err := durable.Write(output, 0o644, func(f *os.File) (err error) {
		recorded, err = record(f)
		return err
	})
	if err != nil {
		return err
	}
	for _, left := range recorded.LeftOut {
		fmt.Fprintf(env.Err, "left out %s: %s\n", left.Path, left.Reason)
	}
	_, err = fmt.Fprintf(env.Out, "%s: %d files; look at it with oscine hardware --root %s\n", output, recorded.Files, output)
	return err
}
