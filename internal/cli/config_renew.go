package cli

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"oscine.dev/oscine/internal/client"
	"oscine.dev/oscine/internal/pki"
	"oscine.dev/oscine/internal/printable"
)

func newConfigRenewCommand(env *Env) *cobra.Command {
	var authority string
	var days int
	c := &cobra.Command{
		Use: "renew", Short: "Give the chosen context a new certificate", Args: exactArgs(0, ""),
		Long: `Give the chosen context a certificate of the same name and role with another key.
The one before it stays valid until it expires or is revoked (oscine config revoke).

With the authority on this computer (--authority) it is signed at once. Without it
the node is asked, which keeps the request until the holder of the authority
approves it (oscine config approve); the next command then takes the certificate.

Commands that call the node do this by themselves in the last 30 days of a
certificate, or the last third of a shorter one. They know the authority's folder
from config generate or config renew --authority.`,
		Example: "  oscine config renew\n  oscine config renew --authority edge1",
		RunE: func(c *cobra.Command, _ []string) error {
			if c.Flags().Changed("days") {
				if err := checkDays(days); err != nil {
					return err
				}
			}
			name, ctx, err := env.context()
			if err != nil {
				return err
			}
			if _, err := os.Stat(filepath.Join(authorityDir(authority, name, ctx), "ca.key")); err != nil && authority == "" {
				if days != 0 {
					return usageError{errors.New("--days is for the holder of the authority: say where ca.key lies with --authority DIR")}
				}
				said, err := askRenewal(c.Context(), env, name)
				if err != nil {
					return err
				}
				fmt.Fprintln(env.Out, said)
				return nil
			}
			renewed, err := renewContext(env, name, authority, time.Duration(days)*day)
			if err != nil {
				return err
			}
			fmt.Fprintf(env.Out, "context %q has a new certificate with role %s until %s, serial %s\nthe one before, serial %s, is valid until %s\n",
				name, pki.RoleOf(renewed.now), date(renewed.now), pki.Serial(renewed.now), pki.Serial(renewed.before), date(renewed.before))
			return nil
		},
	}
	c.Flags().StringVar(&authority, "authority", "", authorityUsage)
	c.Flags().IntVar(&days, "days", 0, "how long the certificate is valid (default as long as the one before)")
	return c
}

func date(cert *x509.Certificate) string { return cert.NotAfter.Format(time.DateOnly) }

// renewal is what renewContext did.
type renewal struct {
	before, now *x509.Certificate
}

// renewContext signs another certificate for a context. An empty dir is the one
// that the context names, a lifetime of 0 that of the certificate before.
func renewContext(env *Env, name, dir string, lifetime time.Duration) (r renewal, err error) {
	err = env.editConfig(func(config *client.Config) error {
		_, chosen, err := config.Context(name)
		if err != nil {
			return err
		}
		if r.before, err = leafOf(chosen); err != nil {
			return fmt.Errorf("the certificate of context %q: %w", name, err)
		}
		role := pki.RoleOf(r.before)
		if role == 0 {
			return fmt.Errorf("the certificate of context %q has no role: make another with oscine config credentials USER", name)
		}
		if lifetime == 0 {
			lifetime = pki.Lifetime(r.before)
		}
		dir, err = filepath.Abs(authorityDir(dir, name, chosen))
		if err != nil {
			return err
		}
		authority, err := authorityOf(chosen, dir)
		if err != nil {
			return err
		}
		pair, _, err := signClient(authority, dir, r.before.Subject.CommonName, role, lifetime)
		if err != nil {
			return err
		}
		chosen.Certificate, chosen.Key, chosen.Authority, chosen.RenewalKey = string(pair.Certificate), string(pair.Key), dir, ""
		r.now, err = leafOf(chosen)
		return err
	})
	return r, err
}

func leafOf(ctx *client.Context) (*x509.Certificate, error) {
	pair, err := pki.Pair{Certificate: []byte(ctx.Certificate), Key: []byte(ctx.Key)}.TLS()
	return pair.Leaf, err
}

// authorityOf loads the authority in a folder. It refuses one that is not the context's,
// whose node would not accept what it signs.
func authorityOf(ctx *client.Context, dir string) (pki.Pair, error) {
	authority, err := requireAuthority(dir)
	if err != nil {
		return authority, err
	}
	pool, err := pki.Pool(authority.Certificate)
	if err != nil {
		return authority, err
	}
	leaf, err := leafOf(ctx)
	if err != nil {
		return authority, err
	}
	if err := pki.VerifyClient(pool, leaf, leaf.NotBefore); err != nil {
		return authority, fmt.Errorf("%s holds another authority than the one that signed this context's certificate: give its folder with --authority DIR (%w)", dir, err)
	}
	return authority, nil
}

// askRenewal asks the node for a certificate in place of a context's, and takes it
// where the holder of the authority has signed it. It returns what to say.
func askRenewal(ctx context.Context, env *Env, name string) (said string, err error) {
	var asking client.Context
	err = env.editConfig(func(config *client.Config) error {
		_, chosen, err := config.Context(name)
		if err != nil {
			return err
		}
		if chosen.RenewalKey == "" {
			made, err := pki.NewKey()
			if err != nil {
				return err
			}
			chosen.RenewalKey = string(made)
		}
		asking = *chosen
		return nil
	})
	if err != nil {
		return "", err
	}
	before, err := leafOf(&asking)
	if err != nil {
		return "", fmt.Errorf("the certificate of context %q: %w", name, err)
	}
	node, err := client.New(&asking)
	if err != nil {
		return "", err
	}
	authority, err := pki.Pool([]byte(asking.CA))
	if err != nil {
		return "", err
	}
	certificate, err := node.Renew(ctx, authority, []byte(asking.RenewalKey))
	if err != nil {
		return "", err
	}
	if certificate == "" {
		return fmt.Sprintf("the certificate of context %q expires on %s: a renewal is asked for, which the holder of the authority approves with oscine config approve %q",
			name, date(before), before.Subject.CommonName), nil
	}
	return fmt.Sprintf("the certificate of context %q was to expire on %s: renewed", name, date(before)), env.editConfig(func(config *client.Config) error {
		_, chosen, err := config.Context(name)
		if err != nil {
			return err
		}
		if chosen.RenewalKey == asking.RenewalKey {
			chosen.Certificate, chosen.Key, chosen.RenewalKey = certificate, asking.RenewalKey, ""
		}
		return nil
	})
}

// askTimeout bounds how long a command waits for the node's answer about a renewal.
const askTimeout = 5 * time.Second

// fresh returns a context whose certificate is renewed where its end is near, and
// says what it did, or what to do, once a command.
func (e *Env) fresh(name string, ctx *client.Context, now time.Time) *client.Context {
	leaf, err := leafOf(ctx)
	if err != nil || e.renewalTold || now.Before(pki.RenewFrom(leaf)) && ctx.RenewalKey == "" {
		return ctx
	}
	e.renewalTold = true
	said, err := e.renew(name, ctx, leaf, now)
	switch {
	case err == nil:
		fmt.Fprintln(e.Err, "oscine:", said)
		if _, renewed, err := e.context(); err == nil {
			return renewed
		}
	case now.Before(leaf.NotAfter): // one that has expired is an error of its own
		fmt.Fprintf(e.Err, "oscine: the certificate of context %q expires on %s and could not be renewed (%s): %s\n", name, date(leaf), printable.Text(message(err)), client.HowToRenew(leaf))
	}
	return ctx
}

// renew renews by the authority on this computer, else through the node.
func (e *Env) renew(name string, ctx *client.Context, leaf *x509.Certificate, now time.Time) (said string, err error) {
	if ctx.Authority != "" {
		r, err := renewContext(e, name, "", 0)
		if err != nil {
			return "", err
		}
		return fmt.Sprintf("the certificate of context %q was to expire on %s: renewed until %s", name, date(leaf), date(r.now)), nil
	}
	limited, cancel := context.WithTimeout(context.Background(), askTimeout)
	defer cancel()
	return askRenewal(limited, e, name)
}
