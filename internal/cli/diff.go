package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"strings"

	"connectrpc.com/connect"
	"github.com/rogpeppe/go-internal/diff"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/structpb"

	"oscine.dev/oscine/internal/api/oscinepb"
	"oscine.dev/oscine/internal/client"
	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/printable"
)

func newDiffCommand(env *Env) *cobra.Command {
	var file string
	c := &cobra.Command{
		Use: "diff -f FILE", Short: "Show what apply would change in the objects of a manifest", Args: exactArgs(0, ""),
		Long: `Show what apply would change: each object of the manifest, with its defaults filled in,
against the one stored on the node, as a unified diff. Nothing is changed. Of the
values in a Secret only the names and sizes are compared. A Machine must be alone
in its manifest, and is compared field by field.

The exit status is 0 where nothing differs, 1 where something does, and more than
1 after an error.`,
		Example: "  oscine diff -f web.yaml\n  oscine diff -f web.yaml || oscine apply -f web.yaml",
		RunE: func(c *cobra.Command, _ []string) error {
			differs, err := diffFile(c.Context(), env, file)
			switch {
			case err != nil && exitStatus(err) == exitFailure:
				return usageError{errors.New(message(err))} // 1 says that something differs
			case err != nil:
				return err
			case differs:
				return exitError(1)
			}
			return nil
		},
	}
	c.Flags().StringVarP(&file, "file", "f", "", "manifest, - for standard input")
	_ = c.MarkFlagRequired("file")
	return c
}

func diffFile(ctx context.Context, env *Env, file string) (differs bool, err error) {
	text, err := readFileOrStdin(env, file)
	if err != nil {
		return false, err
	}
	objects, err := env.Kinds.Parse(strings.NewReader(string(text)))
	if err != nil {
		return false, fmt.Errorf("%s is not valid:\n%w", file, err)
	}
	if loneMachine(objects) {
		return diffMachine(ctx, env, string(text))
	}
	for _, obj := range objects {
		if row, ok := env.Kinds.Find(obj.Key().Kind); ok && !row.Stored() {
			return false, fmt.Errorf("%s: %s", obj.Key(), row.NotApplied)
		}
	}
	node, err := env.Client()
	if err != nil {
		return false, err
	}
	for _, obj := range objects {
		given, err := manifestText(obj)
		if err != nil {
			return differs, err
		}
		stored, err := storedManifest(ctx, node, obj.Key())
		if err != nil && connect.CodeOf(err) != connect.CodeNotFound {
			return differs, err
		}
		name := objectName(string(obj.Key().Kind), obj.Key().Name)
		if d := diff.Diff(path.Join("node", name), stored, path.Join("file", name), given); d != nil {
			differs = true
			if _, err := fmt.Fprint(env.Out, printable.Lines(string(d))); err != nil {
				return differs, err
			}
		}
	}
	return differs, nil
}

// diffMachine prints what applying a Machine would change.
func diffMachine(ctx context.Context, env *Env, manifest string) (differs bool, err error) {
	node, err := env.Client()
	if err != nil {
		return false, err
	}
	resp, err := node.Configuration.Apply(ctx, connect.NewRequest(&oscinepb.ApplyConfigurationRequest{
		What: &oscinepb.ApplyConfigurationRequest_Manifest{Manifest: manifest}, DryRun: true,
	}))
	if err != nil {
		return false, err
	}
	printChanges(env.Out, resp.Msg.Changes)
	return len(resp.Msg.Changes) > 0, nil
}

// manifestText writes an object as YAML, as storedManifest writes the node's.
func manifestText(obj object.Object) ([]byte, error) {
	raw, err := json.Marshal(obj)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", obj.Key(), err)
	}
	fields := &structpb.Struct{}
	if err := fields.UnmarshalJSON(raw); err != nil {
		return nil, fmt.Errorf("encode %s: %w", obj.Key(), err)
	}
	return structYAML(fields)
}

// storedManifest is the manifest that the node keeps, without its status.
func storedManifest(ctx context.Context, node *client.Client, key object.Key) ([]byte, error) {
	resp, err := node.Objects.Get(ctx, connect.NewRequest(&oscinepb.GetRequest{Kind: string(key.Kind), Name: key.Name}))
	if err != nil {
		return nil, err
	}
	if len(resp.Msg.Objects) != 1 || resp.Msg.Objects[0].Manifest == nil {
		return nil, fmt.Errorf("the node keeps no readable manifest of %s; apply it again", key)
	}
	return structYAML(resp.Msg.Objects[0].Manifest)
}

func structYAML(s *structpb.Struct) ([]byte, error) {
	raw, err := s.MarshalJSON()
	if err != nil {
		return nil, err
	}
	return client.BlockYAML(raw)
}
