package node

import (
	"errors"

	"oscine.dev/oscine/internal/attest"
)

// Attest has the machine's TPM sign its registers with the nonce, one call after
// the other. Errors are those of [attest.Open] and [attest.Quote].
func (n *Node) Attest(nonce []byte) (e *attest.Evidence, err error) {
	n.attesting.Lock()
	defer n.attesting.Unlock()
	tpm, err := attest.Open()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, tpm.Close()) }()
	return attest.Quote(tpm, nonce)
}
