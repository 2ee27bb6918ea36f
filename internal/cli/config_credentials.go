package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"oscine.dev/oscine/internal/client"
	"oscine.dev/oscine/internal/durable"
	"oscine.dev/oscine/internal/pki"
)

// credentialsOptions are the flags of config credentials.
type credentialsOptions struct {
	authority, role, output string
	days                    int
	force, renew            bool
}

func newConfigCredentialsCommand(env *Env) *cobra.Command {
	var o credentialsOptions
	c := &cobra.Command{
		Use:   "credentials USER | --renew",
		Short: "Make a client configuration for another person or a program, or renew your own",
		Long: `Sign a certificate with a role and write a client configuration with a copy of
the chosen context and that certificate. Roles: reader sees, operator also
changes workloads, models, secrets and images, admin also changes the machine.

With --renew the chosen context gets a new certificate of the same name and role,
and another key. The one before it is valid until it expires or is revoked
(oscine config revoke).`,
		Example: "  oscine config credentials rita --role reader -o rita.config\n  oscine config credentials --renew",
		Args:    rangeArgs(0, 1, "USER, or --renew"),
		RunE: func(_ *cobra.Command, args []string) error {
			if longest := int(pki.AuthorityLifetime.Hours() / 24); o.days < 1 || o.days > longest {
				return usageError{fmt.Errorf("--days must be from 1 to %d, got %d", longest, o.days)}
			}
			switch {
			case o.renew && (len(args) > 0 || o.output != ""):
				return usageError{errors.New("--renew is for the certificate of the chosen context: leave USER and --output out")}
			case o.renew:
				return renewCredentials(env, o)
			case len(args) == 0:
				return usageError{errors.New("needs USER, or --renew")}
			case o.output == "":
				return usageError{errors.New("needs the file to write: --output FILE")}
			}
			return makeCredentials(env, args[0], o)
		},
	}
	c.Flags().StringVar(&o.authority, "authority", "", "folder with ca.crt and ca.key (default ./CONTEXT)")
	c.Flags().StringVar(&o.role, "role", "reader", "reader, operator or admin")
	c.Flags().StringVarP(&o.output, "output", "o", "", "file to write")
	c.Flags().IntVar(&o.days, "days", 365, "how long the certificate is valid")
	c.Flags().BoolVar(&o.force, "force", false, "replace a file that is there")
	c.Flags().BoolVar(&o.renew, "renew", false, "give the chosen context a new certificate")
	return c
}

func makeCredentials(env *Env, user string, o credentialsOptions) error {
	r, err := pki.ParseRole(o.role)
	if err != nil {
		return usageError{err}
	}
	if _, err := os.Stat(o.output); err == nil && !o.force {
		return fmt.Errorf("%s is there already: choose another file, or replace it with --force", o.output)
	}
	name, base, err := env.context()
	if err != nil {
		return err
	}
	pair, serial, err := signClient(name, user, r, o)
	if err != nil {
		return err
	}
	other := *base
	other.Certificate, other.Key = string(pair.Certificate), string(pair.Key)
	config := &client.Config{}
	config.Set(name, &other)
	if err := config.Save(o.output); err != nil {
		return err
	}
	fmt.Fprintf(env.Out, "%s\tcontext %q with role %s for %d days, serial %s (secret)\n", o.output, name, r, o.days, serial)
	return nil
}

func renewCredentials(env *Env, o credentialsOptions) error {
	name, _, err := env.context()
	if err != nil {
		return err
	}
	return env.editConfig(func(config *client.Config) error {
		_, chosen, err := config.Context(name)
		if err != nil {
			return err
		}
		old, err := pki.Pair{Certificate: []byte(chosen.Certificate), Key: []byte(chosen.Key)}.TLS()
		if err != nil {
			return fmt.Errorf("the certificate of context %q: %w", name, err)
		}
		role := pki.RoleOf(old.Leaf)
		if role == 0 {
			return fmt.Errorf("the certificate of context %q has no role: make another with oscine config credentials USER", name)
		}
		pair, serial, err := signClient(name, old.Leaf.Subject.CommonName, role, o)
		if err != nil {
			return err
		}
		chosen.Certificate, chosen.Key = string(pair.Certificate), string(pair.Key)
		fmt.Fprintf(env.Out, "context %q has a new certificate with role %s for %d days, serial %s\nthe one before, serial %s, is valid until %s\n",
			name, role, o.days, serial, pki.Serial(old.Leaf), old.Leaf.NotAfter.Format(time.DateOnly))
		return nil
	})
}

// signClient signs a client's certificate and notes its serial number beside
// the authority.
func signClient(context, user string, role pki.Role, o credentialsOptions) (pair pki.Pair, serial string, err error) {
	dir := o.authority
	if dir == "" {
		dir = context
	}
	authority, err := loadAuthority(dir)
	if err != nil {
		return pair, "", fmt.Errorf("%w: say where oscine config generate put ca.crt and ca.key with --authority DIR", err)
	}
	pair, err = pki.NewClient(authority, user, role, time.Duration(o.days)*24*time.Hour)
	if err != nil {
		return pair, "", err
	}
	serial, err = noteIssued(dir, pair)
	return pair, serial, err
}

// issuedFile lists the clients' certificates that an authority has signed, a
// line each: serial number, name, role, end. It lies beside the authority.
const issuedFile = "issued.txt"

func noteIssued(dir string, pair pki.Pair) (serial string, err error) {
	signed, err := pair.TLS()
	if err != nil {
		return "", err
	}
	serial = pki.Serial(signed.Leaf)
	path := filepath.Join(dir, issuedFile)
	raw, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("read the list of issued certificates: %w", err)
	}
	name := strings.Map(func(r rune) rune {
		if r == '\t' || r == '\n' || r == '\r' {
			return ' '
		}
		return r
	}, signed.Leaf.Subject.CommonName)
	line := fmt.Sprintf("%s\t%s\t%s\t%s\n", serial, name, pki.RoleOf(signed.Leaf), signed.Leaf.NotAfter.Format(time.DateOnly))
	if err := durable.WriteFile(path, append(raw, line...), 0o600); err != nil {
		return "", fmt.Errorf("write the list of issued certificates: %w", err)
	}
	return serial, nil
}

// issuedTo returns the serial numbers of a client's certificates, of those that
// have not expired.
func issuedTo(dir, name string) ([]string, error) {
	raw, err := os.ReadFile(filepath.Join(dir, issuedFile))
	if err != nil {
		return nil, err
	}
	today := time.Now().Format(time.DateOnly)
	var serials []string
	for line := range strings.Lines(string(raw)) {
		fields := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if len(fields) == 4 && fields[1] == name && fields[3] >= today {
			serials = append(serials, fields[0])
		}
	}
	return serials, nil
}
