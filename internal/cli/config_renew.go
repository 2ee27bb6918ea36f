package cli

import (
	"crypto/x509"
	"fmt"
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
		Long: `Give the chosen context a certificate of the same name and role with another key,
signed by the authority on this computer. The one before it stays valid until it
expires or is revoked (oscine config revoke).

Commands that call the node do this by themselves in the last 30 days of a
certificate, or the last third of a shorter one, if the context names the
authority's folder: config generate and config renew --authority note it.`,
		Example: "  oscine config renew --authority edge1",
		RunE: func(c *cobra.Command, _ []string) error {
			if c.Flags().Changed("days") {
				if err := checkDays(days); err != nil {
					return err
				}
			}
			name, _, err := env.context()
			if err != nil {
				return err
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
	context     *client.Context
}

// renewContext signs another certificate for a context. An empty dir is the one
// that the context names, a lifetime of 0 that of the certificate before.
func renewContext(env *Env, name, dir string, lifetime time.Duration) (r renewal, err error) {
	err = env.editConfig(func(config *client.Config) error {
		_, chosen, err := config.Context(name)
		if err != nil {
			return err
		}
		r.context = chosen
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
		if err := isAuthorityOf(chosen, dir); err != nil {
			return err
		}
		pair, _, err := signClient(dir, r.before.Subject.CommonName, role, lifetime)
		if err != nil {
			return err
		}
		chosen.Certificate, chosen.Key, chosen.Authority = string(pair.Certificate), string(pair.Key), dir
		r.now, err = leafOf(chosen)
		return err
	})
	return r, err
}

func leafOf(ctx *client.Context) (*x509.Certificate, error) {
	pair, err := pki.Pair{Certificate: []byte(ctx.Certificate), Key: []byte(ctx.Key)}.TLS()
	return pair.Leaf, err
}

// isAuthorityOf refuses a folder with another authority than the context's: its
// node would not accept what that one signs.
func isAuthorityOf(ctx *client.Context, dir string) error {
	authority, err := loadAuthority(dir)
	if err != nil {
		return fmt.Errorf("%w: say where oscine config generate put ca.crt and ca.key with --authority DIR", err)
	}
	pool, err := pki.Pool(authority.Certificate)
	if err != nil {
		return err
	}
	leaf, err := leafOf(ctx)
	if err != nil {
		return err
	}
	if err := pki.VerifyClient(pool, leaf, leaf.NotBefore); err != nil {
		return fmt.Errorf("%s holds another authority than the one that signed this context's certificate: give its folder with --authority DIR (%w)", dir, err)
	}
	return nil
}

// fresh returns a context whose certificate is renewed where its end is near, and
// says what it did, or what to do, once a command.
func (e *Env) fresh(name string, ctx *client.Context, now time.Time) *client.Context {
	leaf, err := leafOf(ctx)
	if err != nil || e.renewalTold || now.Before(pki.RenewFrom(leaf)) {
		return ctx
	}
	e.renewalTold = true
	reason := ""
	if ctx.Authority != "" {
		r, err := renewContext(e, name, "", 0)
		if err == nil {
			fmt.Fprintf(e.Err, "oscine: the certificate of context %q was to expire on %s: renewed until %s\n", name, date(leaf), date(r.now))
			return r.context
		}
		reason = fmt.Sprintf(" and could not be renewed (%s)", printable.Text(err.Error()))
	}
	if now.Before(leaf.NotAfter) { // one that has expired is an error of its own
		fmt.Fprintf(e.Err, "oscine: the certificate of context %q expires on %s%s: %s\n", name, date(leaf), reason, client.HowToRenew(leaf))
	}
	return ctx
}
