package cli

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"slices"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	pb "oscine.dev/oscine/internal/api/oscinepb"
	"oscine.dev/oscine/internal/client"
	"oscine.dev/oscine/internal/pki"
)

func newConfigApproveCommand(env *Env) *cobra.Command {
	var authority string
	var days int
	c := &cobra.Command{
		Use: "approve NAME|SERIAL…", Short: "Sign the certificates for which clients ask the node", Args: rangeArgs(1, 1000, "NAME or SERIAL"),
		Long: `Sign with the authority on this computer the certificates for which clients of
the chosen context's node have asked (oscine config renew), and leave them on the
node, where each client's next command takes its own. NAME is the name in the
certificate to renew, SERIAL its serial number (oscine config certificates).

Each gets the same name and role for another key: the request is signed by the
certificate before, which must be valid, so that nobody in between can change it.`,
		Example: "  oscine config certificates\n  oscine config approve rita",
		RunE: func(c *cobra.Command, args []string) error {
			if c.Flags().Changed("days") {
				if err := checkDays(days); err != nil {
					return err
				}
			}
			name, ctx, err := env.context()
			if err != nil {
				return err
			}
			a := approval{env: env, dir: authorityDir(authority, name, ctx), lifetime: time.Duration(days) * day}
			if a.authority, err = authorityOf(ctx, a.dir); err != nil {
				return err
			}
			return a.run(c.Context(), args)
		},
	}
	c.Flags().StringVar(&authority, "authority", "", authorityUsage)
	c.Flags().IntVar(&days, "days", 0, "how long the certificates are valid (default as long as those before)")
	return c
}

// approval signs renewals.
type approval struct {
	env       *Env
	dir       string // of the authority
	authority pki.Pair
	lifetime  time.Duration // 0: as long as the certificate before
}

func (a *approval) run(ctx context.Context, args []string) error {
	node, err := a.env.Client()
	if err != nil {
		return err
	}
	resp, err := node.Access.ListRenewals(ctx, connect.NewRequest(&pb.ListRenewalsRequest{}))
	if err != nil {
		return err
	}
	var errs []error
	found := map[string]bool{}
	for _, asked := range resp.Msg.Renewals {
		renewal := pki.Renewal{Request: []byte(asked.CertificateRequest), Signature: pki.Signature{Certificate: asked.Certificate, Value: asked.Signature}}
		name, serial := renewal.Signature.Signer(), renewal.Signature.Serial()
		if !slices.ContainsFunc(args, func(arg string) bool {
			normal, err := pki.ParseSerial(arg)
			chosen := arg == name || err == nil && normal == serial
			found[arg] = found[arg] || chosen
			return chosen
		}) {
			continue
		}
		signed, err := a.approve(ctx, node, renewal)
		if err != nil {
			errs = append(errs, fmt.Errorf("the renewal of %q, certificate %s: %w", name, serial, err))
			continue
		}
		fmt.Fprintf(a.env.Out, "%s %s with role %s renewed until %s\n", pki.Serial(signed), name, pki.RoleOf(signed), date(signed))
	}
	for _, arg := range args {
		if !found[arg] {
			errs = append(errs, missing{fmt.Errorf("no renewal is asked for by %q: see oscine config certificates", arg)})
		}
	}
	return joined(errs)
}

// approve signs a renewal, notes the certificate beside the authority and leaves it on
// the node, which is not believed: it passes on what the client has signed.
func (a *approval) approve(ctx context.Context, node *client.Client, renewal pki.Renewal) (*x509.Certificate, error) {
	text, err := pki.Renew(a.authority, renewal, a.lifetime)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	signed, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, err
	}
	if err := noteIssued(a.dir, signed); err != nil {
		return nil, err
	}
	_, err = node.Access.Approve(ctx, connect.NewRequest(&pb.ApproveRequest{Serial: renewal.Signature.Serial(), Certificate: string(text)}))
	return signed, err
}
