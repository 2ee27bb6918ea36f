package cli

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"

	"connectrpc.com/connect"

	pb "oscine.dev/oscine/internal/api/oscinepb"
	"oscine.dev/oscine/internal/attest"
	"oscine.dev/oscine/internal/client"
	"oscine.dev/oscine/internal/printable"
)

// attestedEndorsement is a TPM's endorsement certificate, as the report shows it.
type attestedEndorsement struct {
	Maker   string `json:"maker"`
	Model   string `json:"model,omitempty"`
	Version string `json:"version,omitempty"` // of the firmware
	Issuer  string `json:"issuer"`
	Checked bool   `json:"checked"` // signed by --ek-ca, for the TPM that attests
}

// String is how a person reads it.
func (e *attestedEndorsement) String() string {
	if e == nil {
		return "unknown: it has no endorsement certificate"
	}
	checked := "not checked, see --ek-ca"
	if e.Checked {
		checked = "checked"
	}
	return printable.Text(fmt.Sprintf("%s, by %q: %s", strings.Join(strings.Fields(e.Maker+" "+e.Model+" "+e.Version), " "), e.Issuer, checked))
}

// endorsement returns the certificate that the maker put into the TPM that made the
// evidence, nil where there is none. With makers it has to be of one of them, and of
// that TPM.
func endorsement(ctx context.Context, node *client.Client, evidence *attest.Evidence, makers *attest.Makers) (*attestedEndorsement, error) {
	resp, err := node.Node.Endorsements(ctx, connect.NewRequest(&pb.EndorsementsRequest{}))
	if err != nil {
		return nil, err
	}
	var first error // a TPM's certificates are of one maker
	for _, der := range resp.Msg.Certificates {
		e, err := attest.ParseEndorsement(der)
		if err == nil && makers != nil {
			err = e.Verify(makers, time.Now())
			if unknown := (x509.UnknownAuthorityError{}); errors.As(err, &unknown) {
				err = fmt.Errorf("%w: if you accept this maker, add its root and intermediate authorities to the file of --ek-ca", err)
			}
		}
		if err != nil {
			first = cmp.Or(first, err)
			continue
		}
		report := &attestedEndorsement{cmp.Or(e.Maker, "unknown maker"), e.Model, e.Version, e.Issuer, false}
		if makers == nil {
			return report, nil
		}
		if err := activate(ctx, node, e, evidence); err != nil {
			return nil, err
		}
		report.Checked = true
		return report, nil
	}
	if first == nil && makers != nil {
		return nil, errors.New("its TPM has no endorsement certificate, so nobody can tell who made it: leave --ek-ca out, and compare the key's fingerprint at the node")
	}
	return nil, first
}

// activate has the TPM prove that the endorsement key of the certificate and the key
// that signed the evidence are both its own.
func activate(ctx context.Context, node *client.Client, e *attest.Endorsement, evidence *attest.Evidence) error {
	challenge, secret, err := e.Challenge(evidence)
	if err != nil {
		return err
	}
	resp, err := node.Node.ActivateCredential(ctx, connect.NewRequest(&pb.ActivateCredentialRequest{
		Certificate: challenge.Endorsement, Credential: challenge.Credential, Secret: challenge.Secret,
	}))
	if err != nil {
		return fmt.Errorf("its key and its endorsement certificate are not of one TPM: %w", err)
	}
	if !attest.Opened(secret, resp.Msg.Secret) {
		return errors.New("its key and its endorsement certificate are not of one TPM: the challenge was answered wrongly")
	}
	return nil
}

// maxMakers bounds the file of --ek-ca in bytes: makers have some dozens of
// authorities each.
const maxMakers = 4 << 20

// readMakers reads the file of --ek-ca; nil where there is none.
func readMakers(env *Env, file string) (*attest.Makers, error) {
	if file == "" {
		return nil, nil
	}
	text, err := readBounded(env, file, maxMakers, "more than the authorities of TPM makers")
	if err != nil {
		return nil, err
	}
	m, err := attest.ReadMakers(text)
	if err != nil {
		return nil, usageError{fmt.Errorf("--ek-ca %s: %w", file, err)}
	}
	return m, nil
}

// checkEndorsement adds the TPM's endorsement certificate to the report: with --ek-ca
// it must be good, else it is told where the TPM's key is not known yet.
func (a *attestation) checkEndorsement(ctx context.Context, env *Env, known bool, node *client.Client, e *attest.Evidence, report *attested) error {
	if a.makers == nil && known {
		return nil
	}
	var err error
	report.Endorsement, err = endorsement(ctx, node, e, a.makers)
	if err != nil && a.makers == nil { // also a node of an older release
		fmt.Fprintf(env.Err, "the endorsement certificate of the TPM cannot be read: %s\n", printable.Lines(message(err)))
		return nil
	}
	report.askedEndorsement = true
	return err
}
