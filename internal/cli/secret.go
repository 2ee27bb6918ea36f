package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"oscine.dev/oscine/internal/api/oscinepb"
	"oscine.dev/oscine/internal/client"
	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/printable"
)

func newSecretCommand(env *Env) *cobra.Command {
	c := &cobra.Command{Use: "secret", Short: "Manage values that workloads receive and nobody can read back"}
	c.AddCommand(newSecretSetCommand(env), newSecretListCommand(env), newSecretRemoveCommand(env))
	return c
}

// secretOptions are the flags of secret set.
type secretOptions struct {
	files              []string
	stdin              string
	registry, username string
}

func newSecretSetCommand(env *Env) *cobra.Command {
	var o secretOptions
	c := &cobra.Command{
		Use:   "set NAME --from-stdin ENTRY | --from-file [ENTRY=]FILE… | ENTRY=VALUE…",
		Short: "Make a secret, or add and replace entries of one",
		Long: `Make a secret, or add and replace entries of one that is there; its other
entries stay. Workloads that use it as variables restart; mounted files are rewritten.

Prefer standard input or a file: a value on the command line stays in the shell's
history and is visible to everyone on this computer who lists processes. One newline at
the end of standard input is dropped.

With --registry and --username, the entry "password" is what the node gives to
that registry when it pulls images, packs and models.`,
		Example: "  pass show db | oscine secret set db --from-stdin password\n  oscine secret set tls --from-file tls.crt --from-file tls.key\n  oscine secret set ghcr --registry ghcr.io --username rita --from-stdin password < token",
		Args:    rangeArgs(1, 1000, "NAME and entries"),
		RunE: func(c *cobra.Command, args []string) error {
			data, err := o.entries(env, args[1:])
			if err != nil {
				return err
			}
			node, err := env.Client()
			if err != nil {
				return err
			}
			spec, err := presentSecret(c, env, node, args[0])
			if err != nil {
				return err
			}
			spec.Data = data
			for name := range data {
				delete(spec.Kept, name)
			}
			if o.registry != "" || o.username != "" {
				spec.Registry = &object.RegistryCredentials{Server: o.registry, Username: o.username}
			}
			manifest, err := json.Marshal(&object.Secret{
				Header: object.Header{APIVersion: object.APIVersion, Kind: object.KindSecret, Metadata: object.Metadata{Name: args[0]}}, Spec: spec,
			})
			if err != nil {
				return err
			}
			if _, err := env.Kinds.Parse(strings.NewReader(string(manifest))); err != nil {
				return usageError{fmt.Errorf("nothing was set:\n%w", withoutLines(err))}
			}
			resp, err := node.Objects.Apply(c.Context(), connect.NewRequest(&oscinepb.ApplyRequest{Manifest: string(manifest)}))
			if err != nil {
				return err
			}
			for _, r := range resp.Msg.Results {
				fmt.Fprintf(env.Out, "%s/%s %s\n", strings.ToLower(r.Kind), r.Name, r.Action)
			}
			return nil
		},
	}
	c.Flags().StringArrayVar(&o.files, "from-file", nil, "file with a value; the entry is named after the file unless ENTRY= is given")
	c.Flags().StringVar(&o.stdin, "from-stdin", "", "entry whose value comes on standard input")
	c.Flags().StringVar(&o.registry, "registry", "", "registry that the entry password is for, such as ghcr.io")
	c.Flags().StringVar(&o.username, "username", "", "user of that registry")
	c.MarkFlagsRequiredTogether("registry", "username")
	return c
}

// entries reads the values. Its errors name entries and never values.
func (o *secretOptions) entries(env *Env, pairs []string) (map[string]object.Base64, error) {
	data := map[string]object.Base64{}
	add := func(name string, value []byte) error {
		if _, ok := data[name]; ok {
			return usageError{fmt.Errorf("the entry %q is given twice", name)}
		}
		data[name] = value
		return nil
	}
	for i, pair := range pairs {
		name, value, ok := strings.Cut(pair, "=")
		if !ok || name == "" { // it may be the value itself: not repeated
			return nil, usageError{fmt.Errorf("argument %d after the name is not written ENTRY=VALUE", i+1)}
		}
		if err := add(name, []byte(value)); err != nil {
			return nil, err
		}
	}
	for _, given := range o.files {
		name, file, ok := strings.Cut(given, "=")
		if !ok {
			name, file = filepath.Base(given), given
		}
		value, err := readBounded(env, file, object.MaxBytes, "more than a secret may have")
		if err == nil {
			err = add(name, value)
		}
		if err != nil {
			return nil, err
		}
	}
	if o.stdin != "" {
		value, err := readBounded(env, "-", object.MaxBytes, "more than a secret may have")
		if err != nil {
			return nil, err
		}
		if err := add(o.stdin, []byte(strings.TrimSuffix(strings.TrimSuffix(string(value), "\n"), "\r"))); err != nil {
			return nil, err
		}
	}
	if len(data) == 0 && o.registry == "" {
		return nil, usageError{errors.New("needs an entry: --from-stdin ENTRY, --from-file FILE or ENTRY=VALUE")}
	}
	return data, nil
}

// presentSecret is what the node shows of a secret, whose values it keeps;
// nothing where it has none of that name.
func presentSecret(c *cobra.Command, env *Env, node *client.Client, name string) (object.SecretSpec, error) {
	spec := object.SecretSpec{Kept: map[string]int64{}}
	resp, err := node.Objects.Get(c.Context(), connect.NewRequest(&oscinepb.GetRequest{Kind: string(object.KindSecret), Name: name}))
	if connect.CodeOf(err) == connect.CodeNotFound {
		return spec, nil
	}
	if err != nil {
		return spec, err
	}
	for _, obj := range resp.Msg.Objects {
		state, err := client.State(env.Kinds, obj)
		if err != nil {
			return spec, err
		}
		if s, ok := state.Object.(*object.Secret); ok {
			spec.Registry = s.Spec.Registry
			maps.Copy(spec.Kept, s.Spec.Kept)
		}
	}
	return spec, nil
}

// secretInfo is a secret as secret list shows it.
type secretInfo struct {
	Name    string           `json:"name"`
	Type    string           `json:"type"`
	Entries map[string]int64 `json:"entries"` // bytes by name
}

func newSecretListCommand(env *Env) *cobra.Command {
	var output *string
	c := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List secrets and the names and sizes of their entries", Args: exactArgs(0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			node, err := env.Client()
			if err != nil {
				return err
			}
			resp, err := node.Objects.Get(c.Context(), connect.NewRequest(&oscinepb.GetRequest{Kind: string(object.KindSecret)}))
			if err != nil {
				return err
			}
			infos, names := []secretInfo{}, []string{}
			for _, obj := range resp.Msg.Objects {
				state, err := client.State(env.Kinds, obj)
				if err != nil {
					return err
				}
				info := secretInfo{Name: state.Name}
				if s, ok := state.Object.(*object.Secret); ok { // else it cannot be read
					info.Type, info.Entries = s.Type(), s.Spec.Kept
				}
				infos, names = append(infos, info), append(names, state.Name)
			}
			return listing{infos, names, func(w io.Writer, _ bool) error { return printSecrets(w, infos) }}.print(env.Out, *output)
		},
	}
	output = addOutput(c)
	return c
}

func printSecrets(out io.Writer, infos []secretInfo) error {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tTYPE\tENTRY\tBYTES")
	for _, i := range infos {
		if len(i.Entries) == 0 {
			fmt.Fprintf(w, "%s\t%s\t-\t-\n", i.Name, orDash(i.Type))
		}
		for _, entry := range slices.Sorted(maps.Keys(i.Entries)) {
			fmt.Fprintf(w, "%s\t%s\t%s\t%d\n", i.Name, i.Type, printable.Text(entry), i.Entries[entry])
		}
	}
	return w.Flush()
}

func newSecretRemoveCommand(env *Env) *cobra.Command {
	return &cobra.Command{
		Use: "rm NAME", Aliases: []string{"remove", "delete"}, Short: "Delete a secret that no workload uses", Args: exactArgs(1, "NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			node, err := env.Client()
			if err != nil {
				return err
			}
			if _, err := node.Objects.Delete(c.Context(), connect.NewRequest(&oscinepb.DeleteRequest{Kind: string(object.KindSecret), Name: args[0]})); err != nil {
				return err
			}
			fmt.Fprintf(env.Out, "secret/%s deleted\n", args[0])
			return nil
		},
	}
}
