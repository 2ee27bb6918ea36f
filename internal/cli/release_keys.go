package cli

import (
	"cmp"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"oscine.dev/oscine/internal/update/keys"
	"oscine.dev/oscine/internal/update/repository"
)

func newReleaseKeysCommand(env *Env) *cobra.Command {
	c := &cobra.Command{
		Use: "keys", Short: "Make and replace the keys that sign releases",
		Long: `Releases are signed by keys of four roles. root names the keys of all roles and is needed
only to change them: keep it offline. targets signs releases, or delegates that to the
keys of the role releases. snapshot and timestamp keep the folder consistent and fresh:
keep them where the folder is published.`,
	}
	c.AddCommand(newReleaseKeysGenerateCommand(env), newReleaseKeysListCommand(env), newReleaseKeysRotateCommand(env))
	return c
}

func newReleaseKeysGenerateCommand(env *Env) *cobra.Command {
	var roles []string
	var count int
	var passphrase string
	c := &cobra.Command{
		Use: "generate KEYS", Short: "Make keys in a folder", Args: exactArgs(1, "KEYS, a folder"),
		Long: `Make an Ed25519 key for each role: ROLE-ID.key, readable only by its owner, and
ROLE-ID.pub, which you may give to others. With a passphrase the private half is encrypted.`,
		Example: "  oscine release keys generate ~/keys\n  oscine release keys generate /media/offline/keys --role root --count 2 --passphrase-file pass",
		RunE: func(c *cobra.Command, args []string) error {
			secret, err := []byte(nil), error(nil)
			if passphrase != "" {
				if secret, err = askPassphrase(env, passphrase)(); err != nil {
					return err
				}
			}
			for _, role := range roles {
				if role == "" || strings.ContainsAny(role, "-/\\. ") {
					return usageError{fmt.Errorf("--role %q: use root, targets, snapshot, timestamp, releases or a name of letters and digits", role)}
				}
				for range count {
					k, err := keys.Generate(args[0], role, secret)
					if err != nil {
						return err
					}
					fmt.Fprintf(env.Out, "%s  %s\n", k.ID, filepath.Join(args[0], role+"-"+k.ID[:8]+".key"))
				}
			}
			return nil
		},
	}
	c.Flags().StringSliceVar(&roles, "role", []string{"root", "targets", "snapshot", "timestamp"}, "roles to make keys for")
	c.Flags().IntVar(&count, "count", 1, "how many keys for each role")
	c.Flags().StringVar(&passphrase, "passphrase-file", "", "file with a passphrase to encrypt the keys by, - for standard input")
	return c
}

func newReleaseKeysListCommand(env *Env) *cobra.Command {
	var output *string
	c := &cobra.Command{
		Use: "list FOLDER", Aliases: []string{"ls"}, Short: "List the roles of a release folder, their keys and when they expire", Args: exactArgs(1, "FOLDER"),
		RunE: func(c *cobra.Command, args []string) error {
			roles, err := repository.Open(args[0], nil, repository.Options{}).Roles()
			if err != nil {
				return err
			}
			var names []string
			for _, r := range roles {
				names = append(names, r.Name)
			}
			return listing{roles, names, func(w io.Writer, wide bool) error { return printRoles(w, roles, wide) }}.print(env.Out, *output)
		},
	}
	output = addOutput(c)
	return c
}

// printRoles lists roles; a wide table has the whole identifiers of their keys.
func printRoles(out io.Writer, roles []repository.Role, wide bool) error {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "ROLE\tVERSION\tEXPIRES\tSIGN\tKEYS")
	for _, r := range roles {
		ids := slices.Clone(r.Keys)
		for i, id := range ids {
			if !wide {
				ids[i] = id[:min(8, len(id))]
			}
		}
		fmt.Fprintf(w, "%s\t%d\t%s\t%d of %d\t%s\n", r.Name, r.Version, r.Expires.Format("2006-01-02 15:04"), r.Threshold, len(r.Keys), strings.Join(ids, " "))
	}
	return w.Flush()
}

// keysFor loads the keys of a folder that are named after a role. Private halves
// that are there sign too.
func keysFor(env *Env, dir, role, passphrase string) ([]*keys.Key, error) {
	if dir == "" {
		return nil, nil
	}
	all, err := keys.Load(dir, askPassphrase(env, passphrase))
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(k *keys.Key) bool { return k.Name != role })
	if len(all) == 0 {
		return nil, fmt.Errorf("%s holds no key for the role %s: its files are named %s-ID.key or .pub", dir, role, role)
	}
	slices.SortFunc(all, func(a, b *keys.Key) int { return cmp.Compare(a.ID, b.ID) })
	return all, nil
}

func newReleaseKeysRotateCommand(env *Env) *cobra.Command {
	var s signing
	var rotation repository.Rotation
	var add string
	c := &cobra.Command{
		Use: "rotate FOLDER ROLE", Short: "Add and remove keys of a role", Args: exactArgs(2, "FOLDER and ROLE"),
		Long: `Add and remove keys of a role, and change how many must sign. Nodes learn of it from
a new version of root, which must be signed by enough of the old root keys and of the
new ones. A role that lost a key is safe once this is published: what the lost key signs
from then on is refused.`,
		Example: "  oscine release keys generate new --role timestamp\n  oscine release keys rotate releases timestamp --keys ~/keys --add new --remove 1f3a5b7c",
		RunE: func(c *cobra.Command, args []string) error {
			rotation.Role = args[1]
			var err error
			if rotation.Add, err = keysFor(env, add, args[1], s.passphrase); err != nil {
				return err
			}
			if len(rotation.Add)+len(rotation.Remove) == 0 && rotation.Threshold == 0 {
				return usageError{fmt.Errorf("nothing to change: give --add, --remove or --threshold")}
			}
			r, err := s.openWith(env, args[0], rotation.Add)
			if err != nil {
				return err
			}
			result, err := r.Rotate(rotation)
			if err != nil {
				return err
			}
			return tellResult(env.Out, result)
		},
	}
	s.add(c)
	c.Flags().StringVar(&add, "add", "", "folder of keys to add; .pub files are enough")
	c.Flags().StringSliceVar(&rotation.Remove, "remove", nil, "identifiers of keys to remove, or their first 8 digits")
	c.Flags().IntVar(&rotation.Threshold, "threshold", 0, "how many keys must sign from now on (default: unchanged)")
	return c
}
