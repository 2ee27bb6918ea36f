package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"oscine.dev/oscine/internal/api/oscinepb"
	"oscine.dev/oscine/internal/client"
	"oscine.dev/oscine/internal/object"
)

// deleteFlags are the flags of oscine delete.
type deleteFlags struct{ file, labels string }

func newDeleteCommand(env *Env) *cobra.Command {
	var f deleteFlags
	c := &cobra.Command{
		SuggestFor: []string{"rm", "remove"},
		Use:        "delete KIND NAME... | KIND/NAME... | -f FILE | [KIND] -l LABELS", Short: "Stop objects and forget them; volumes stay",
		Example:           "  oscine delete workload web\n  oscine delete workload/web model/digits\n  oscine delete workloads -l app=shop\n  oscine delete -f shop.yaml",
		ValidArgsFunction: completeTarget(env), Args: cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			labels, err := parseLabels(f.labels)
			if err != nil {
				return err
			}
			kind, targets, err := f.targets(env, args)
			if err != nil {
				return err
			}
			node, err := env.Client()
			if err != nil {
				return err
			}
			if labels != nil {
				if targets, err = labelled(c.Context(), node, kind, labels); err != nil {
					return err
				}
				if len(targets) == 0 {
					fmt.Fprintln(env.Err, "no object has these labels")
				}
			}
			return deleteAll(c.Context(), env, node, targets)
		},
	}
	c.Flags().StringVarP(&f.file, "file", "f", "", "delete the objects of this manifest, - for standard input")
	c.Flags().StringVarP(&f.labels, "selector", "l", "", labelHelp)
	return c
}

// targets reads what to delete: a kind alone with -l, else every object.
func (f *deleteFlags) targets(env *Env, args []string) (kind string, targets []object.Key, err error) {
	switch {
	case f.file != "" && (len(args) > 0 || f.labels != ""):
		return "", nil, usageError{errors.New("give either -f FILE or KIND NAME")}
	case f.file != "":
		raw, err := readFileOrStdin(env, f.file)
		if err != nil {
			return "", nil, err
		}
		objects, err := env.Kinds.Parse(strings.NewReader(string(raw)))
		if err != nil {
			return "", nil, fmt.Errorf("%s:\n%w", f.file, err)
		}
		for _, obj := range objects {
			targets = append(targets, obj.Key())
		}
		slices.Reverse(targets) // a Secret goes after the workloads below it that use it
		return "", targets, nil
	case f.labels != "":
		kind, name, err := env.parseTarget(args)
		if err == nil && (name != "" || len(args) > 1) {
			err = usageError{errors.New("give either -l LABELS or names")}
		}
		return kind, nil, err
	}
	if len(args) == 0 {
		return "", nil, usageError{errors.New("needs KIND and NAME, -f FILE or -l LABELS")}
	}
	targets, err = env.parseSeveral(args)
	return "", targets, err
}

// parseSeveral reads KIND NAME..., or KIND/NAME several times.
func (e *Env) parseSeveral(args []string) ([]object.Key, error) {
	needs := usageError{errors.New("needs KIND and NAME")}
	if len(args) == 0 {
		return nil, needs
	}
	slashes := 0
	for _, arg := range args {
		if strings.Contains(arg, "/") {
			slashes++
		}
	}
	if slashes != 0 && slashes != len(args) {
		return nil, usageError{errors.New("write KIND/NAME each time, or KIND NAME..., not both")}
	}
	kind := ""
	if slashes == 0 {
		if len(args) < 2 {
			return nil, needs
		}
		kind, args = args[0], args[1:]
	}
	var keys []object.Key
	for _, arg := range args {
		of, name, err := e.parseTarget(append(slices.DeleteFunc([]string{kind}, func(k string) bool { return k == "" }), arg))
		if err != nil {
			return nil, err
		}
		if of == "" || name == "" {
			return nil, needs
		}
		keys = append(keys, object.Key{Kind: object.Kind(of), Name: name})
	}
	return keys, nil
}

// labelled are the objects of a kind, "" for all, that have the labels.
func labelled(ctx context.Context, node *client.Client, kind string, labels labelSelector) ([]object.Key, error) {
	resp, err := node.Objects.Get(ctx, connect.NewRequest(&oscinepb.GetRequest{Kind: kind}))
	if err != nil {
		return nil, err
	}
	var keys []object.Key
	for _, obj := range labels.choose(resp.Msg.Objects) {
		keys = append(keys, object.Key{Kind: object.Kind(obj.Kind), Name: obj.Name})
	}
	return keys, nil
}

// deleteAll deletes every object, also where one of them fails.
func deleteAll(ctx context.Context, env *Env, node *client.Client, targets []object.Key) error {
	var errs []error
	for i, t := range targets {
		name := objectName(string(t.Kind), t.Name)
		wait := newWaiting(env, fmt.Sprintf("%s stops (%d of %d)", name, i+1, len(targets)))
		_, err := node.Objects.Delete(ctx, connect.NewRequest(&oscinepb.DeleteRequest{Kind: string(t.Kind), Name: t.Name}))
		wait.done()
		if err != nil {
			errs = append(errs, err)
			continue
		}
		fmt.Fprintf(env.Out, "%s deleted\n", name)
	}
	return joined(errs)
}
