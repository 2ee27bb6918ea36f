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
	return withTPM(n, func(tpm transport.TPM) (*attest.Evidence, error) { return attest.Quote(tpm, nonce) })
}

// Endorsements are the certificates that the TPM's maker put into it.
func (n *Node) Endorsements() ([][]byte, error) { return withTPM(n, attest.Endorsements) }

// Activate has the TPM open a challenge. Errors are those of [attest.Open] and
// [attest.Activate].
func (n *Node) Activate(c attest.Challenge) (secret []byte, err error) {
	return withTPM(n, func(tpm transport.TPM) ([]byte, error) { return attest.Activate(tpm, c) })
}

// RequestCertificate makes another key of the node's own and a request for its
// certificate. With a nonce the machine's TPM signs its registers, bound to the
// request; errors are then those of Attest.
func (n *Node) RequestCertificate(nonce []byte) (request []byte, e *attest.Evidence, err error) {
	if request, err = n.identity.Request(); err != nil || len(nonce) == 0 {
		return request, nil, err
	}
	e, err = withTPM(n, func(tpm transport.TPM) (*attest.Evidence, error) { return attest.QuoteRequest(tpm, nonce, request) })
	return request, e, err
}

// Identity is the certificate by which clients recognise the node.
func (n *Node) Identity() *identity.Identity { return n.identity }

// withTPM uses the machine's TPM, one caller after the other.
func withTPM[T any](n *Node, use func(transport.TPM) (T, error)) (result T, err error) {
	n.attesting.Lock()
	defer n.attesting.Unlock()
	tpm, err := attest.Open()
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, tpm.Close()) }()
	return use(tpm)
}
