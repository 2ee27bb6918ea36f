package node

import (
	"errors"

	"github.com/google/go-tpm/tpm2/transport"

	"oscine.dev/oscine/internal/attest"
	"oscine.dev/oscine/internal/node/identity"
)

// Attest has the machine's TPM sign its registers with the nonce, one call after
// the other. Errors are those of [attest.Open] and [attest.Quote].
func (n *Node) Attest(nonce []byte) (*attest.Evidence, error) {
	return n.withTPM(func(tpm transport.TPM) (*attest.Evidence, error) { return attest.Quote(tpm, nonce) })
}

// RequestCertificate makes another key of the node's own and a request for its
// certificate. With a nonce the machine's TPM signs its registers, bound to the
// request; errors are then those of Attest.
func (n *Node) RequestCertificate(nonce []byte) (request []byte, e *attest.Evidence, err error) {
	if request, err = n.identity.Request(); err != nil || len(nonce) == 0 {
		return request, nil, err
	}
	e, err = n.withTPM(func(tpm transport.TPM) (*attest.Evidence, error) { return attest.QuoteRequest(tpm, nonce, request) })
	return request, e, err
}

// Identity is the certificate by which clients recognise the node.
func (n *Node) Identity() *identity.Identity { return n.identity }

func (n *Node) withTPM(quote func(transport.TPM) (*attest.Evidence, error)) (e *attest.Evidence, err error) {
	n.attesting.Lock()
	defer n.attesting.Unlock()
	tpm, err := attest.Open()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, tpm.Close()) }()
	return quote(tpm)
}
