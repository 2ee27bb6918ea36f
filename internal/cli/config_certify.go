package cli

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	pb "oscine.dev/oscine/internal/api/oscinepb"
	"oscine.dev/oscine/internal/client"
	"oscine.dev/oscine/internal/pki"
)

func newConfigCertifyCommand(env *Env) *cobra.Command {
	var authority string
	var days int
	var acceptExpired bool
	c := &cobra.Command{
		Use: "certify", Short: "Give the chosen context's node another certificate", Args: exactArgs(0, ""),
		Long: `Have the node of the chosen context make another key, and sign a certificate for
it with the authority on this computer. The node uses it at once; connections that
are open stay. Nothing is attested: use it for nodes without a TPM, to return to a
long certificate, or where attestation fails for a reason that you know. Otherwise
use oscine attest NODE --renew.

A certificate that has expired proves only that its key was once the node's. Make
sure that you reach the node itself, and give --accept-expired.`,
		Example: "  oscine config certify\n  oscine config certify --days 90 --authority edge1",
		RunE: func(c *cobra.Command, _ []string) error {
			if err := checkDays(days); err != nil {
				return err
			}
			signs, err := newNodeCertifier(env, authority, time.Duration(days)*day)
			if err != nil {
				return err
			}
			node, shown, err := env.authorityClient()
			if err != nil {
				return err
			}
			resp, err := node.Node.RequestCertificate(c.Context(), connect.NewRequest(&pb.RequestCertificateRequest{}))
			if err != nil {
				return err
			}
			before := shown.Certificate()
			if time.Now().After(before.NotAfter) && !acceptExpired {
				return fmt.Errorf("%s: the node's certificate expired at %s, and anyone who has an old key of the node could ask for one in its place: use oscine attest --renew, or make sure that you reach the node itself and give --accept-expired",
					signs.name, before.NotAfter.Format(time.RFC3339))
			}
			now, err := signs.install(c.Context(), node, before, []byte(resp.Msg.CertificateRequest))
			if err != nil {
				return err
			}
			fmt.Fprintf(env.Out, "%s has a certificate until %s, serial %s; the one before was valid until %s\n", signs.name, date(now), pki.Serial(now), date(before))
			return nil
		},
	}
	c.Flags().StringVar(&authority, "authority", "", authorityUsage)
	c.Flags().IntVar(&days, "days", int(pki.NodeLifetime/day), "how long the certificate is valid")
	c.Flags().BoolVar(&acceptExpired, "accept-expired", false, "sign for a node whose certificate has expired")
	return c
}

// nodeCertifier signs certificates of a context's node.
type nodeCertifier struct {
	env       *Env
	name      string // of the context
	authority pki.Pair
	lifetime  time.Duration
}

// newNodeCertifier takes the authority in dir, by default the context's.
func newNodeCertifier(env *Env, dir string, lifetime time.Duration) (*nodeCertifier, error) {
	name, ctx, err := env.context()
	if err != nil {
		return nil, err
	}
	authority, err := authorityOf(ctx, authorityDir(dir, name, ctx))
	return &nodeCertifier{env, name, authority, lifetime}, err
}

// install signs what the node asks for, which shows the certificate before, brings
// it the certificate, and makes sure that other clients see it.
func (s *nodeCertifier) install(ctx context.Context, node *client.Client, before *x509.Certificate, request []byte) (*x509.Certificate, error) {
	certificate, err := pki.RenewNode(s.authority, request, before, s.lifetime)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.name, err)
	}
	block, _ := pem.Decode(certificate)
	signed, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, err
	}
	if _, err := node.Node.InstallCertificate(ctx, connect.NewRequest(&pb.InstallCertificateRequest{Certificate: string(certificate)})); err != nil {
		return nil, fmt.Errorf("%s: %w", s.name, err)
	}
	another, shown, err := s.env.authorityClient() // over a connection of its own
	if err != nil {
		return nil, err
	}
	if _, err := another.Node.Info(ctx, connect.NewRequest(&pb.InfoRequest{})); err != nil {
		return nil, err
	}
	if now := shown.Certificate(); !now.Equal(signed) {
		return nil, fmt.Errorf("%s: the node uses the certificate with serial %s instead of the one that it was given: someone else renews it at the same time", s.name, pki.Serial(now))
	}
	return signed, nil
}
