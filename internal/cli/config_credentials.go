package cli

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/spf13/cobra"

	"oscine.dev/oscine/internal/client"
	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/pki"
)

// credentialsOptions are the flags of config credentials.
type credentialsOptions struct {
	authority, role, output string
	node, address           string // of the node, where there is no context to copy
	days                    int
	force                   bool
}

func newConfigCredentialsCommand(env *Env) *cobra.Command {
	var o credentialsOptions
	c := &cobra.Command{
		Use:   "credentials USER -o FILE",
		Short: "Make a client configuration for another person or a program",
		Long: `Sign a certificate with a role and write a client configuration with a copy of
the chosen context and that certificate. Roles: reader sees, operator also
changes workloads, models, secrets and images, admin also changes the machine.

Who has the authority but no context any more names the node instead of one.`,
		Example: "  oscine config credentials rita --role reader -o rita.config\n  oscine config credentials admin --role admin --authority edge1 --node edge1 --address 192.0.2.7 -o admin.config",
		Args:    exactArgs(1, "USER"),
		RunE: func(_ *cobra.Command, args []string) error {
			if err := checkDays(o.days); err != nil {
				return err
			}
			if o.output == "" {
				return usageError{errors.New("needs the file to write: --output FILE")}
			}
			return makeCredentials(env, args[0], o)
		},
	}
	c.Flags().StringVar(&o.authority, "authority", "", authorityUsage)
	c.Flags().StringVar(&o.role, "role", "reader", "reader, operator or admin")
	c.Flags().StringVarP(&o.output, "output", "o", "", "file to write")
	c.Flags().IntVar(&o.days, "days", 365, "how long the certificate is valid")
	c.Flags().StringVar(&o.node, "node", "", "the node's name, to copy no context")
	c.Flags().StringVar(&o.address, "address", "", "host or host:port under which clients reach the API of --node")
	c.MarkFlagsRequiredTogether("node", "address")
	c.Flags().BoolVar(&o.force, "force", false, "replace a file that is there")
	return c
}

// authorityUsage describes --authority.
const authorityUsage = "folder with ca.crt and ca.key (default the one that the context names, else ./CONTEXT)"

func checkDays(days int) error {
	if longest := int(pki.AuthorityLifetime / day); days < 1 || days > longest {
		return usageError{fmt.Errorf("--days must be from 1 to %d, got %d", longest, days)}
	}
	return nil
}

const day = 24 * time.Hour

func makeCredentials(env *Env, user string, o credentialsOptions) error {
	r, err := pki.ParseRole(o.role)
	if err != nil {
		return usageError{err}
	}
	if _, err := os.Stat(o.output); err == nil && !o.force {
		return fmt.Errorf("%s is there already: choose another file, or replace it with --force", o.output)
	}
	name, base, err := o.base(env)
	if err != nil {
		return err
	}
	dir := authorityDir(o.authority, name, base)
	authority, err := requireAuthority(dir)
	if err != nil {
		return err
	}
	pair, serial, err := signClient(authority, dir, user, r, time.Duration(o.days)*day)
	if err != nil {
		return err
	}
	other := *base
	other.Certificate, other.Key, other.Authority, other.RenewalKey = string(pair.Certificate), string(pair.Key), "", ""
	config := &client.Config{}
	config.Set(name, &other)
	if err := config.Save(o.output); err != nil {
		return err
	}
	fmt.Fprintf(env.Out, "%s\tcontext %q with role %s for %d days, serial %s (secret)\n", o.output, name, r, o.days, serial)
	return nil
}

// base is the context that the new one is a copy of.
func (o credentialsOptions) base(env *Env) (string, *client.Context, error) {
	if o.node == "" {
		return env.context()
	}
	if err := object.CheckName(o.node); err != nil {
		return "", nil, usageError{fmt.Errorf("the node's name %w", err)}
	}
	host, port, err := splitAddress(o.address)
	if err != nil {
		return "", nil, err
	}
	authority, err := requireAuthority(cmp.Or(o.authority, o.node))
	return o.node, &client.Context{Address: net.JoinHostPort(host, port), ServerName: o.node, CA: string(authority.Certificate)}, err
}

// authorityDir is the folder of the authority that signs for a context: the one
// that was given, else the one that the context names, else that of its name.
func authorityDir(given, name string, ctx *client.Context) string {
	return cmp.Or(given, ctx.Authority, name)
}

// signClient signs a client's certificate and notes its serial number beside
// the authority.
func signClient(authority pki.Pair, dir, user string, role pki.Role, lifetime time.Duration) (pair pki.Pair, serial string, err error) {
	pair, err = pki.NewClient(authority, user, role, lifetime)
	if err != nil {
		return pair, "", err
	}
	signed, err := pair.TLS()
	if err != nil {
		return pair, "", err
	}
	return pair, pki.Serial(signed.Leaf), noteIssued(dir, signed.Leaf)
}
