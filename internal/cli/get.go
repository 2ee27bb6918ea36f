package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"oscine.dev/oscine/internal/api/oscinepb"
	"oscine.dev/oscine/internal/client"
	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/printable"
)

func newGetCommand(env *Env) *cobra.Command {
	var output *string
	var watch bool
	var labelText string
	c := &cobra.Command{
		Use: "get [KIND [NAME]]", Short: "List objects: what is meant to run, and its state", ValidArgsFunction: completeTarget(env), Args: rangeArgs(0, 2, "KIND and NAME at most"),
		Example: "  oscine get\n  oscine get workloads\n  oscine get model digits -o yaml\n  oscine get workloads --watch",
		RunE: func(c *cobra.Command, args []string) error {
			kind, name, err := env.parseTarget(args)
			if err != nil {
				return err
			}
			labels, err := parseLabels(labelText)
			if err != nil {
				return err
			}
			if watch && *output == outputYAML {
				return usageError{errors.New("--watch prints lines: use -o table, json or name")}
			}
			node, err := env.Client()
			if err != nil {
				return err
			}
			if watch {
				return watchObjects(c, env, node.Objects.Watch, kind, name, *output, labels)
			}
			resp, err := node.Objects.Get(c.Context(), connect.NewRequest(&oscinepb.GetRequest{Kind: kind, Name: name}))
			if err != nil {
				return err
			}
			return printObjects(env, labels.choose(resp.Msg.Objects), *output)
		},
	}
	output = addOutput(c)
	c.Flags().StringVarP(&labelText, "selector", "l", "", labelHelp)
	c.Flags().BoolVarP(&watch, "watch", "w", false, "go on and print every change")
	return c
}

// printObjects prints the state of objects as a table, or their manifests with
// the status, as the node sent them.
func printObjects(env *Env, objects []*oscinepb.Object, output string) error {
	switch output {
	case outputName:
		for _, obj := range objects {
			fmt.Fprintln(env.Out, printable.Text(objectName(obj.Kind, obj.Name)))
		}
		return nil
	case outputJSON:
		list := make([]json.RawMessage, len(objects))
		for i, obj := range objects {
			var err error
			if list[i], err = client.ManifestJSON(obj); err != nil {
				return err
			}
		}
		enc := json.NewEncoder(env.Out)
		enc.SetIndent("", "  ")
		return enc.Encode(list)
	case outputYAML:
		for _, obj := range objects {
			raw, err := client.ManifestJSON(obj)
			if err != nil {
				return err
			}
			text, err := client.BlockYAML(raw)
			if err != nil {
				return err
			}
			fmt.Fprintf(env.Out, "---\n%s", text)
		}
		return nil
	}
	return printTable(env, objects, output == outputWide)
}

// printTable prints a line for each object: what all kinds have and, where all
// are of one kind, its own columns.
func printTable(env *Env, objects []*oscinepb.Object, wide bool) error {
	states := make([]object.State, len(objects))
	var own []object.Column
	for i, obj := range objects {
		var err error
		if states[i], err = client.State(env.Kinds, obj); err != nil {
			return err
		}
		if row, ok := env.Kinds.Find(states[i].Kind); ok {
			own = row.Columns
		}
	}
	if slices.ContainsFunc(states, func(s object.State) bool { return s.Kind != states[0].Kind }) {
		own = nil
	}
	tw := tabwriter.NewWriter(env.Out, 0, 8, 2, ' ', 0)
	titles := []string{"KIND", "NAME", "PHASE", "CPUS", "RESTARTS", "AGE"}
	for _, column := range own {
		titles = append(titles, column.Title)
	}
	models := len(states) > 0 && !slices.ContainsFunc(states, func(s object.State) bool { return s.Kind != object.KindModel })
	if wide {
		titles = append(titles, "NUMA", "DEVICES", "CLASS")
		if models {
			titles = append(titles, "SERVED AS")
		}
	}
	fmt.Fprintln(tw, strings.Join(append(titles, "MESSAGE"), "\t"))
	for _, state := range states {
		if state.Status == nil {
			state.Status = &object.Observed{}
		}
		st := state.Status.Common()
		cells := []string{string(state.Kind), state.Name, orDash(string(st.Phase)), orDash(st.CPUs()), strconv.Itoa(st.Restarts), age(cmp.Or(st.CreatedAt, st.StartedAt))}
		for _, column := range own {
			cells = append(cells, orDash(column.Value(state.Status)))
		}
		if wide {
			cells = append(cells, wideCells(state)...)
			if m, ok := state.Object.(*object.Model); models && ok {
				cells = append(cells, m.ServedName())
			} else if models {
				cells = append(cells, orDash(""))
			}
		}
		fmt.Fprintln(tw, strings.Join(append(cells, firstLine(st.Message)), "\t"))
	}
	return tw.Flush()
}

// wideCells are the cells of the columns that a wide table has beside.
func wideCells(state object.State) []string {
	placement, class := &object.PlacementStatus{}, ""
	if p := state.Status.Common().Placement; p != nil {
		placement = p
	}
	if obj, ok := state.Object.(object.Placeable); ok {
		class = string(obj.Class())
	}
	return []string{orDash(placement.NUMANodes), orDash(strings.Join(placement.Devices, ",")), orDash(class)}
}

// orDash is text of a node for a cell of a table.
func orDash(s string) string { return printable.Text(cmp.Or(s, "-")) }

func age(started *time.Time) string {
	if started == nil {
		return "-"
	}
	return time.Since(*started).Round(time.Second).String()
}

// firstLine is the first line of a node's text, for a terminal.
func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return printable.Text(line)
}

type watchCall func(ctx context.Context, req *connect.Request[oscinepb.GetRequest]) (*connect.ServerStreamForClient[oscinepb.WatchResponse], error)

// watchObjects prints every change as a line, or as the object with its event.
func watchObjects(c *cobra.Command, env *Env, call watchCall, kind, name, output string, labels labelSelector) error {
	stream, err := call(c.Context(), connect.NewRequest(&oscinepb.GetRequest{Kind: kind, Name: name}))
	if err != nil {
		return unlessLeft(c.Context(), err)
	}
	defer stream.Close()
	chosen := map[string]bool{}
	for stream.Receive() {
		m := stream.Msg()
		name := objectName(m.Object.Kind, m.Object.Name)
		if m.Object.Manifest != nil {
			chosen[name] = labels.chooses(m.Object) // what was deleted has no labels any more
		}
		if labels != nil && !chosen[name] {
			continue
		}
		if err := printChange(env, m, output); err != nil {
			return err
		}
	}
	return unlessLeft(c.Context(), stream.Err())
}

func printChange(env *Env, m *oscinepb.WatchResponse, output string) error {
	if output == "json" {
		var raw json.RawMessage
		if m.Object.Manifest != nil {
			var err error
			if raw, err = client.ManifestJSON(m.Object); err != nil {
				return err
			}
		}
		return json.NewEncoder(env.Out).Encode(struct {
			Event  string          `json:"event"`
			Kind   string          `json:"kind"`
			Name   string          `json:"name"`
			Object json.RawMessage `json:"object,omitempty"`
		}{m.Event, m.Object.Kind, m.Object.Name, raw})
	}
	name := printable.Text(objectName(m.Object.Kind, m.Object.Name))
	if output == outputName {
		fmt.Fprintln(env.Out, name)
		return nil
	}
	if m.Event == "deleted" {
		fmt.Fprintf(env.Out, "%s deleted\n", name)
		return nil
	}
	state, err := client.State(env.Kinds, m.Object)
	if err != nil {
		return err
	}
	st := state.Status.Common()
	fmt.Fprintln(env.Out, strings.TrimSpace(fmt.Sprintf("%s %s %s", name, st.Phase, firstLine(st.Message))))
	return nil
}
