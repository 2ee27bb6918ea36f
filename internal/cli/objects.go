package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sort"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"oscine.dev/oscine/internal/api/oscinepb"
)

func newApplyCommand(env *Env) *cobra.Command {
	var file string
	var dryRun bool
	c := &cobra.Command{
		Use: "apply -f FILE", Short: "Create or change workloads and models", Args: exactArgs(0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			text, err := readFileOrStdin(env, file)
			if err != nil {
				return err
			}
			// Checked here too, so that mistakes are told without a node.
			if _, err := env.Kinds.Parse(strings.NewReader(string(text))); err != nil {
				return fmt.Errorf("%s is not valid, nothing was applied:\n%w", file, err)
			}
			node, err := env.Client()
			if err != nil {
				return err
			}
			resp, err := node.Objects.Apply(c.Context(), connect.NewRequest(&oscinepb.ApplyRequest{Manifest: string(text), DryRun: dryRun}))
			if err != nil {
				return err
			}
			suffix := ""
			if dryRun {
				suffix = " (dry run)"
			}
			for _, r := range resp.Msg.Results {
				fmt.Fprintf(env.Out, "%s/%s %s%s\n", strings.ToLower(r.Kind), r.Name, r.Action, suffix)
			}
			return nil
		},
	}
	c.Flags().StringVarP(&file, "file", "f", "", "manifest, - for standard input")
	c.Flags().BoolVar(&dryRun, "dry-run", false, "check and say what would be done")
	_ = c.MarkFlagRequired("file")
	return c
}

// parseTarget reads KIND [NAME] or KIND/NAME.
func (e *Env) parseTarget(args []string) (kind, name string, err error) {
	if len(args) == 0 {
		return "", "", nil
	}
	word, rest, slash := strings.Cut(args[0], "/")
	switch {
	case slash && len(args) > 1:
		return "", "", usageError{fmt.Errorf("write KIND/NAME or KIND NAME, not both")}
	case slash:
		name = rest
	case len(args) > 1:
		name = args[1]
	}
	switch strings.ToLower(word) {
	case "all":
		return "", name, nil
	case "event", "events":
		return "", "", usageError{errors.New("events have a command of their own: oscine events, or oscine describe KIND NAME for those of one object")}
	}
	stored := e.Kinds.Stored()
	row, ok := stored.ByWord(word)
	if !ok {
		return "", "", usageError{fmt.Errorf("no kind is called %q: use %s", word, stored.Words())}
	}
	return string(row.Kind), name, nil
}

// parseNamed reads NAME, of whatever kind, KIND NAME or KIND/NAME.
func (e *Env) parseNamed(args []string) (kind, name string, err error) {
	kind, name, err = e.parseTarget(args)
	if len(args) != 1 || strings.Contains(args[0], "/") {
		return kind, name, err
	}
	if err == nil { // a kind alone
		return "", "", usageError{fmt.Errorf("needs a name: %s NAME", args[0])}
	}
	return "", args[0], nil
}

func rangeArgs(least, most int, names string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) < least || len(args) > most {
			return usageError{fmt.Errorf("takes %s: %s", names, c.UseLine())}
		}
		return nil
	}
}

func newGetCommand(env *Env) *cobra.Command {
	var output string
	var watch bool
	c := &cobra.Command{
		Use: "get [KIND [NAME]]", Short: "List workloads and models", Args: rangeArgs(0, 2, "KIND and NAME at most"),
		Example: "  oscine get\n  oscine get workloads\n  oscine get model digits -o yaml\n  oscine get workloads --watch",
		RunE: func(c *cobra.Command, args []string) error {
			kind, name, err := env.parseTarget(args)
			if err != nil {
				return err
			}
			if err := checkOutput(output, "table", "json", "yaml"); err != nil {
				return err
			}
			node, err := env.Client()
			if err != nil {
				return err
			}
			if watch {
				return watchObjects(c, env, node.Objects.Watch, kind, name)
			}
			resp, err := node.Objects.Get(c.Context(), connect.NewRequest(&oscinepb.GetRequest{Kind: kind, Name: name}))
			if err != nil {
				return err
			}
			return printObjects(env.Out, resp.Msg.Objects, output)
		},
	}
	c.Flags().StringVarP(&output, "output", "o", "table", "table, json or yaml")
	c.Flags().BoolVarP(&watch, "watch", "w", false, "go on and print every change")
	return c
}

func checkOutput(got string, allowed ...string) error {
	for _, a := range allowed {
		if got == a {
			return nil
		}
	}
	return usageError{fmt.Errorf("unknown output %q: use %s", got, strings.Join(allowed, ", "))}
}

func printObjects(w io.Writer, objects []*oscinepb.Object, output string) error {
	if output != "table" {
		list := make([]map[string]any, len(objects))
		for i, obj := range objects {
			list[i] = obj.Manifest.AsMap()
			list[i]["status"] = obj.Status.AsMap()
		}
		if output == "json" {
			enc := json.NewEncoder(w)
			enc.SetIndent("", "  ")
			return enc.Encode(list)
		}
		for _, obj := range list {
			raw, err := yaml.Marshal(obj)
			if err != nil {
				return err
			}
			fmt.Fprintf(w, "---\n%s", raw)
		}
		return nil
	}
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(tw, "KIND\tNAME\tPHASE\tCPUS\tRESTARTS\tAGE\tMESSAGE")
	for _, obj := range objects {
		fmt.Fprintln(tw, objectRow(obj))
	}
	return tw.Flush()
}

func objectRow(obj *oscinepb.Object) string {
	st := obj.Status.AsMap()
	placement, _ := st["placement"].(map[string]any)
	return fmt.Sprintf("%s\t%s\t%s\t%s\t%v\t%s\t%s", obj.Kind, obj.Name, text(st["phase"]), text(placement["cpus"]),
		number(st["restarts"]), age(text(st["startedAt"])), firstLine(text(st["message"])))
}

func text(v any) string {
	if v == nil {
		return "-"
	}
	return fmt.Sprint(v)
}

func number(v any) int { f, _ := v.(float64); return int(f) }

func age(started string) string {
	t, err := time.Parse(time.RFC3339Nano, started)
	if err != nil {
		return "-"
	}
	return time.Since(t).Round(time.Second).String()
}

func firstLine(s string) string {
	if s == "-" {
		return ""
	}
	line, _, _ := strings.Cut(s, "\n")
	return line
}

type watchCall func(ctx context.Context, req *connect.Request[oscinepb.GetRequest]) (*connect.ServerStreamForClient[oscinepb.WatchResponse], error)

func watchObjects(c *cobra.Command, env *Env, call watchCall, kind, name string) error {
	stream, err := call(c.Context(), connect.NewRequest(&oscinepb.GetRequest{Kind: kind, Name: name}))
	if err != nil {
		return unlessLeft(c.Context(), err)
	}
	defer stream.Close()
	for stream.Receive() {
		m := stream.Msg()
		if m.Event == "deleted" {
			fmt.Fprintf(env.Out, "%s/%s deleted\n", strings.ToLower(m.Object.Kind), m.Object.Name)
			continue
		}
		st := m.Object.Status.AsMap()
		fmt.Fprintln(env.Out, strings.TrimSpace(fmt.Sprintf("%s/%s %s %s", strings.ToLower(m.Object.Kind), m.Object.Name, text(st["phase"]), firstLine(text(st["message"])))))
	}
	return unlessLeft(c.Context(), stream.Err())
}

func newDescribeCommand(env *Env) *cobra.Command {
	return &cobra.Command{
		Use: "describe [KIND] NAME", Short: "Tell all about one workload or model, its placement, why, and what happened", Args: rangeArgs(1, 2, "NAME or KIND NAME"),
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
				fmt.Fprintf(env.Out, "%s %s\n", obj.Kind, obj.Name)
				printTree(env.Out, "  ", "Spec", obj.Manifest.AsMap()["spec"])
				printTree(env.Out, "  ", "Status", obj.Status.AsMap())
				if err := describeEvents(c, env.Out, node, obj.Kind, obj.Name); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// printTree prints a JSON value as indented lines in order of its keys.
func printTree(w io.Writer, indent, key string, value any) {
	switch v := value.(type) {
	case map[string]any:
		if len(v) == 0 {
			return
		}
		if key == "isolation" {
			printIsolation(w, indent, v)
			return
		}
		fmt.Fprintf(w, "%s%s:\n", indent, key)
		keys := make([]string, 0, len(v))
		for k := range v {
			keys = append(keys, k)
		}
		sort.Strings(keys)
		for _, k := range keys {
			printTree(w, indent+"  ", k, v[k])
		}
	case []any:
		if line, ok := inline(v); ok {
			fmt.Fprintf(w, "%s%s: %s\n", indent, key, line)
			return
		}
		fmt.Fprintf(w, "%s%s:\n", indent, key)
		for _, item := range v {
			printTree(w, indent+"  ", "-", item)
		}
	case float64: // all numbers of JSON
		fmt.Fprintf(w, "%s%s: %s\n", indent, key, strconv.FormatFloat(v, 'f', -1, 64))
	case string:
		fmt.Fprintf(w, "%s%s: %s\n", indent, key, strings.ReplaceAll(v, "\n", "\n"+indent+"  "))
	default:
		fmt.Fprintf(w, "%s%s: %v\n", indent, key, v)
	}
}

// inline writes a list of plain values on one line.
func inline(list []any) (line string, ok bool) {
	parts := make([]string, len(list))
	for i, item := range list {
		switch item.(type) {
		case map[string]any, []any:
			return "", false
		}
		parts[i] = fmt.Sprint(item)
	}
	return strings.Join(parts, ", "), true
}

func newDeleteCommand(env *Env) *cobra.Command {
	var file string
	c := &cobra.Command{
		Use: "delete KIND NAME", Short: "Stop and forget workloads and models; volumes stay", Args: rangeArgs(0, 2, "KIND and NAME, or -f FILE"),
		RunE: func(c *cobra.Command, args []string) error {
			targets, err := deleteTargets(env, file, args)
			if err != nil {
				return err
			}
			node, err := env.Client()
			if err != nil {
				return err
			}
			var errs []error
			for _, t := range targets {
				_, err := node.Objects.Delete(c.Context(), connect.NewRequest(&oscinepb.DeleteRequest{Kind: t[0], Name: t[1]}))
				if err != nil {
					errs = append(errs, errors.New(message(err)))
					continue
				}
				fmt.Fprintf(env.Out, "%s/%s deleted\n", strings.ToLower(t[0]), t[1])
			}
			return errors.Join(errs...)
		},
	}
	c.Flags().StringVarP(&file, "file", "f", "", "delete the objects of this manifest, - for standard input")
	return c
}

func deleteTargets(env *Env, file string, args []string) ([][2]string, error) {
	if file == "" {
		kind, name, err := env.parseTarget(args)
		if err == nil && (kind == "" || name == "") {
			err = usageError{errors.New("needs KIND and NAME, or -f FILE")}
		}
		return [][2]string{{kind, name}}, err
	}
	if len(args) > 0 {
		return nil, usageError{errors.New("give either -f FILE or KIND NAME")}
	}
	raw, err := readFileOrStdin(env, file)
	if err != nil {
		return nil, err
	}
	objects, err := env.Kinds.Parse(strings.NewReader(string(raw)))
	if err != nil {
		return nil, fmt.Errorf("%s:\n%w", file, err)
	}
	var targets [][2]string
	for _, obj := range objects {
		targets = append(targets, [2]string{string(obj.Key().Kind), obj.Key().Name})
	}
	return targets, nil
}
