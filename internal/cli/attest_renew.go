package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	pb "oscine.dev/oscine/internal/api/oscinepb"
	"oscine.dev/oscine/internal/attest"
	"oscine.dev/oscine/internal/client"
	"oscine.dev/oscine/internal/pki"
	"oscine.dev/oscine/internal/printable"
)

// Bounds on renewing a node's certificate.
const (
	minValid   = 10 * time.Minute
	minEvery   = time.Minute
	retryAfter = 5 * time.Minute // where a round of --every has failed
)

// nodeRenewal are the flags of oscine attest that renew the node's certificate.
type nodeRenewal struct {
	on           bool
	valid, every time.Duration
	authority    string
}

func (r *nodeRenewal) addFlags(c *cobra.Command) {
	f := c.Flags()
	f.BoolVar(&r.on, "renew", false, "sign another certificate for the node, if it runs what is expected")
	f.DurationVar(&r.valid, "valid", pki.MaxAttestedLifetime, "with --renew: how long the certificate is valid, at most 24h")
	f.DurationVar(&r.every, "every", 0, "with --renew: go on, and renew so often")
	f.StringVar(&r.authority, "authority", "", "with --renew: "+authorityUsage)
}

func (r *nodeRenewal) check(c *cobra.Command) error {
	f := c.Flags()
	if !r.on {
		for _, name := range []string{"valid", "every", "authority"} {
			if f.Changed(name) {
				return usageError{fmt.Errorf("--%s is for --renew: give both", name)}
			}
		}
		return nil
	}
	if !f.Changed("image") && !f.Changed("releases") && !f.Changed("pcr") {
		return usageError{errors.New("--renew needs to know what the node must run: give --image, --releases or --pcr")}
	}
	if r.valid < minValid || r.valid > pki.MaxAttestedLifetime {
		return usageError{fmt.Errorf("--valid %s: must be from %s to %s", r.valid, minValid, pki.MaxAttestedLifetime)}
	}
	if f.Changed("every") && (r.every < minEvery || r.every >= r.valid) {
		return usageError{fmt.Errorf("--every %s: must be from %s to less than --valid, which is %s", r.every, minEvery, r.valid)}
	}
	return nil
}

// asking is how a node is asked for its evidence.
type asking struct {
	node *client.Client

	// For --renew.
	signs   *nodeCertifier // nil: nothing is renewed
	shown   *client.Shown
	request []byte // for a certificate, by the node
}

// reach returns a way to ask the context's node.
func (a *attestation) reach(env *Env) (asks *asking, err error) {
	asks = &asking{}
	if !a.renewal.on {
		asks.node, err = env.Client()
		return asks, err
	}
	if asks.signs, err = newNodeCertifier(env, a.renewal.authority, a.renewal.valid); err != nil {
		return nil, err
	}
	asks.node, asks.shown, err = env.authorityClient()
	return asks, err
}

// quote has the node's TPM sign its registers, with --renew bound to a request.
func (k *asking) quote(ctx context.Context, nonce []byte) (*attest.Evidence, error) {
	var m *pb.AttestResponse
	if k.signs == nil {
		resp, err := k.node.Node.Attest(ctx, connect.NewRequest(&pb.AttestRequest{Nonce: nonce}))
		if err != nil {
			return nil, err
		}
		m = resp.Msg
	} else {
		resp, err := k.node.Node.RequestCertificate(ctx, connect.NewRequest(&pb.RequestCertificateRequest{Nonce: nonce}))
		if err != nil {
			return nil, err
		}
		m, k.request = resp.Msg.Evidence, []byte(resp.Msg.CertificateRequest)
	}
	return &attest.Evidence{Public: m.GetPublic(), Quote: m.GetQuote(), Signature: m.GetSignature(), PCRs: m.GetPcrs()}, nil
}

// qualifying is what the TPM signs beside the registers.
func (k *asking) qualifying(nonce []byte) []byte {
	if k.signs == nil {
		return nonce
	}
	return attest.Binding(nonce, k.request)
}

// renew signs what the node has asked for.
func (k *asking) renew(ctx context.Context) (*renewedCertificate, error) {
	signed, err := k.signs.install(ctx, k.node, k.shown.Certificate(), k.request)
	if err != nil {
		return nil, err
	}
	return &renewedCertificate{pki.Serial(signed), signed.NotAfter}, nil
}

// renewedCertificate is a node's certificate that --renew signed.
type renewedCertificate struct {
	Serial   string    `json:"serial"`
	NotAfter time.Time `json:"notAfter"`
}

// checkExpired refuses to trust the first key of a TPM that comes, where nothing but
// an expired certificate says whose it is.
func (a *attestation) checkExpired(name string, ctx *client.Context, asks *asking) error {
	if asks.shown == nil || ctx.AttestationKey != "" || a.key != "" || a.newKey {
		return nil
	}
	if end := asks.shown.Certificate().NotAfter; time.Now().After(end) {
		return fmt.Errorf("%s: the node's certificate expired at %s, and this context does not know the key of its TPM: give its fingerprint with --key, or if you are sure that you reach the node itself, take the one that comes with --new-key", name, end.Format(time.RFC3339))
	}
	return nil
}

// keepRenewing renews until ctx ends. What can never succeed ends it.
func (a *attestation) keepRenewing(ctx context.Context, env *Env) error {
	if _, err := newNodeCertifier(env, a.renewal.authority, a.renewal.valid); err != nil {
		return err
	}
	for {
		env.renewalTold = false // the client's certificate too comes to its end
		report, err := a.run(ctx, env)
		wait := a.renewal.every
		var usage usageError
		switch {
		case errors.As(err, &usage):
			return err
		case ctx.Err() != nil:
			return nil
		case err != nil:
			wait = min(wait, retryAfter)
			fmt.Fprintf(env.Err, "oscine: %s: %s; next try in %s\n", time.Now().Format(time.RFC3339), printable.Lines(message(err)), wait)
		default:
			a.newKey = false // for the first time only
			fmt.Fprintf(env.Out, "%s: %s runs %s as expected: certificate renewed until %s, serial %s\n",
				time.Now().Format(time.RFC3339), report.Node, printable.Text(report.Version), report.Renewed.NotAfter.Format(time.RFC3339), report.Renewed.Serial)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}
