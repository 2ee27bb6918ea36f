package cli

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"oscine.dev/oscine/internal/api/oscinepb"
	"oscine.dev/oscine/internal/client"
	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/printable"
)

func newEditCommand(env *Env) *cobra.Command {
	return &cobra.Command{
		Use: "edit KIND NAME", Short: "Change the manifest of an object in an editor and apply it",
		Long: `Open the stored manifest of an object in $VISUAL, $EDITOR or vi, and apply it when
it is saved. Errors are added at the top as comments, and the editor opens again.
Saving without a change ends the command: nothing is applied, and a manifest with
errors is kept in a file, whose name is printed.`,
		Example: "  oscine edit workload web\n  EDITOR=nano oscine edit model/digits",
		Args:    rangeArgs(1, 2, "KIND and NAME"), ValidArgsFunction: completeTarget(env),
		RunE: func(c *cobra.Command, args []string) error {
			kind, name, err := env.parseTarget(args)
			if err == nil && (kind == "" || name == "") {
				err = usageError{errors.New("needs KIND and NAME")}
			}
			if err != nil {
				return err
			}
			node, err := env.Client()
			if err != nil {
				return err
			}
			return (&edit{env: env, node: node, key: object.Key{Kind: object.Kind(kind), Name: name}}).run(c.Context())
		},
	}
}

// edit is one object in the hands of a person.
type edit struct {
	env  *Env
	node *client.Client
	key  object.Key
	file string
}

func (e *edit) run(ctx context.Context) (err error) {
	stored, err := storedManifest(ctx, e.node, e.key)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp("", "oscine-"+e.key.ID()+"-*.yaml")
	if err != nil {
		return err
	}
	e.file = f.Name()
	if err := f.Close(); err != nil {
		return err
	}
	text, problem := stored, error(nil)
	for {
		shown := append(comments(problem), text...)
		if err := os.WriteFile(e.file, shown, 0o600); err != nil {
			return e.kept(err)
		}
		if err := e.editor(ctx); err != nil {
			return e.kept(err)
		}
		edited, err := readBounded(e.env, e.file, object.MaxBytes, "so not a manifest")
		if err != nil {
			return e.kept(err)
		}
		edited = withoutComments(edited)
		switch {
		case bytes.Equal(edited, stored):
			fmt.Fprintln(e.env.Out, "nothing was changed")
			return os.Remove(e.file)
		case problem != nil && bytes.Equal(edited, text):
			return e.kept(problem)
		}
		text = edited
		results, applyErr := e.apply(ctx, stored, text)
		if applyErr == nil {
			return errors.Join(printResults(e.env.Out, results, false), os.Remove(e.file))
		}
		if status := exitStatus(applyErr); ctx.Err() != nil || status == exitUnavailable || status == exitDenied || status == exitConflict {
			return e.kept(applyErr) // no other text would help
		}
		problem = applyErr
	}
}

// keptError says where the text is and stays the error that it was.
type keptError struct {
	error
	file string
}

func (k keptError) Error() string {
	return fmt.Sprintf("%s\nnothing was applied; your text is in %s: correct it and run oscine apply -f", message(k.error), k.file)
}

func (k keptError) Unwrap() error { return k.error }

func (e *edit) kept(err error) error { return keptError{err, e.file} }

// conflict is the error of a manifest that changed meanwhile.
type conflict struct{ error }

func (conflict) Conflict() {}

func (e *edit) apply(ctx context.Context, stored, text []byte) ([]*oscinepb.ApplyResult, error) {
	objects, err := e.env.Kinds.Parse(bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	if len(objects) != 1 || objects[0].Key() != e.key {
		return nil, object.Errors{{Reason: fmt.Sprintf("must stay the one object %s; use oscine apply for others", e.key)}}
	}
	now, err := storedManifest(ctx, e.node, e.key)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(now, stored) {
		return nil, conflict{fmt.Errorf("%s was changed by someone else while you edited it: compare with oscine diff -f %s", e.key, e.file)}
	}
	resp, err := e.node.Objects.Apply(ctx, connect.NewRequest(&oscinepb.ApplyRequest{Manifest: string(text)}))
	if err != nil {
		return nil, err
	}
	return resp.Msg.Results, nil
}

// editor runs the person's editor, which may be a command with arguments.
func (e *edit) editor(ctx context.Context) error {
	program := cmp.Or(os.Getenv("VISUAL"), os.Getenv("EDITOR"), "vi")
	c := exec.CommandContext(ctx, "sh", "-c", program+` "$1"`, "sh", e.file)
	c.Stdin, c.Stdout, c.Stderr = e.env.In, e.env.Out, e.env.Err
	if err := c.Run(); err != nil {
		return fmt.Errorf("the editor %q: %w", program, err)
	}
	return nil
}

// mark begins the lines that edit writes itself.
const mark = "#! "

func comments(problem error) []byte {
	if problem == nil {
		return nil
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "%sThis was not applied. Correct it and save, or save it unchanged to give up.\n", mark)
	for line := range strings.Lines(printable.Lines(message(problem))) {
		fmt.Fprintf(&b, "%s%s\n", mark, strings.TrimRight(line, "\n"))
	}
	return b.Bytes()
}

// withoutComments takes away what comments wrote.
func withoutComments(text []byte) []byte {
	var b []byte
	for line := range bytes.Lines(text) {
		if !bytes.HasPrefix(line, []byte(mark)) {
			b = append(b, line...)
		}
	}
	return b
}
