package cli

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"

	pb "oscine.dev/oscine/internal/api/oscinepb"
	"oscine.dev/oscine/internal/client"
	"oscine.dev/oscine/internal/printable"
)

func newEventsCommand(env *Env) *cobra.Command {
	var req pb.EventsRequest
	var output *string
	c := &cobra.Command{
		Use: "events [KIND [NAME]]", Short: "Show what happened on a node: promises, devices, starts and ends", ValidArgsFunction: completeTarget(env), Args: rangeArgs(0, 2, "KIND and NAME at most"),
		Long: `Show what happened on a node, the oldest first: promises that were broken or
repaired, devices that were lost or wear out, workloads that started, ended or
were displaced, certificates that were revoked. What happened several times is shown once, with its count.

The last 512 are kept, also over a restart of the node.`,
		Example: "  oscine events -f\n  oscine events workload web\n  oscine events --device gpu0\n  oscine events --warnings --tail 20",
		RunE: func(c *cobra.Command, args []string) (err error) {
			if req.Kind, req.Name, err = env.parseTarget(args); err != nil {
				return err
			}
			if req.Tail < 0 {
				return usageError{errors.New("--tail must not be negative")}
			}
			node, err := env.Client()
			if err != nil {
				return err
			}
			stream, err := node.Logs.Events(c.Context(), connect.NewRequest(&req))
			if err != nil {
				return unlessLeft(c.Context(), err)
			}
			return printEvents(c, env, stream, *output)
		},
	}
	output = addOutput(c) // JSON with one event a line
	c.Flags().StringVar(&req.Device, "device", "", "only those of this device (gpu0, eth0, a PCI address)")
	c.Flags().BoolVar(&req.Warnings, "warnings", false, "only what someone should look at")
	c.Flags().BoolVarP(&req.Follow, "follow", "f", false, "go on with events as they come")
	c.Flags().Int64Var(&req.Tail, "tail", 0, "only the last so many (0: all that are kept)")
	return c
}

// printEvents prints events as they come: a stream knows no widths beforehand,
// so the columns have fixed ones.
func printEvents(c *cobra.Command, env *Env, stream *connect.ServerStreamForClient[pb.Event], output string) error {
	defer stream.Close()
	first := true
	for stream.Receive() {
		if output != outputTable && output != outputWide {
			if err := writeEvent(env.Out, stream.Msg(), output); err != nil {
				return err
			}
			first = false
			continue
		}
		if first {
			fmt.Fprintf(env.Out, eventFormat, "LAST SEEN", "OBJECT", "REASON", "COUNT", "MESSAGE")
			first = false
		}
		e := stream.Msg()
		fmt.Fprintf(env.Out, eventFormat, e.Last.AsTime().Local().Format("01-02 15:04:05"), printable.Text(eventObject(e)), printable.Text(e.Reason), fmt.Sprint(e.Count), oneLine(e.Message))
	}
	if first && c.Context().Err() == nil && stream.Err() == nil {
		fmt.Fprintln(env.Err, "no such events are kept")
	}
	return unlessLeft(c.Context(), stream.Err())
}

// writeEvent writes one event for programs.
func writeEvent(w io.Writer, e *pb.Event, output string) error {
	if output == outputName {
		_, err := fmt.Fprintln(w, printable.Text(eventObject(e)))
		return err
	}
	raw, err := protojson.Marshal(e)
	if err == nil && output == outputYAML {
		if raw, err = client.BlockYAML(raw); err == nil {
			raw = append([]byte("---\n"), bytes.TrimSpace(raw)...)
		}
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(w, string(raw))
	return err
}

const eventFormat = "%-14s  %-20s  %-16s  %5s  %s\n"

// eventObject is what an event is about. A device of an object is in the
// message.
func eventObject(e *pb.Event) string {
	if e.Kind != "" {
		return strings.ToLower(e.Kind) + "/" + e.Name
	}
	return cmp.Or(e.Device, "machine")
}

// oneLine is text of a node for one line of a terminal.
func oneLine(s string) string {
	return printable.Text(strings.ReplaceAll(strings.TrimSpace(s), "\n", "; "))
}

// describeEvents prints what happened to one object, the oldest first.
func describeEvents(c *cobra.Command, w io.Writer, node *client.Client, kind, name string) error {
	stream, err := node.Logs.Events(c.Context(), connect.NewRequest(&pb.EventsRequest{Kind: kind, Name: name, Tail: describedEvents}))
	if err != nil {
		return err
	}
	defer stream.Close()
	first := true
	for stream.Receive() {
		if first {
			fmt.Fprintln(w, "  Events:")
			first = false
		}
		e := stream.Msg()
		times := ""
		if e.Count > 1 {
			times = fmt.Sprintf(" (%d times since %s)", e.Count, e.First.AsTime().Local().Format("01-02 15:04:05"))
		}
		fmt.Fprintf(w, "    %s ago  %s  %s%s\n", time.Since(e.Last.AsTime()).Round(time.Second), printable.Text(e.Reason), oneLine(e.Message), times)
	}
	return stream.Err()
}

// describedEvents is how many events describe shows.
const describedEvents = 20
