package attest

import (
	"bytes"
	"crypto/sha256"
	"errors"

	"github.com/containerd/errdefs"
	"github.com/google/go-tpm/tpm2"
)

// Errors a caller can act on.
var (
	// ErrNoTPM is returned by Open on a machine without a TPM 2.0.
	ErrNoTPM = errdefs.ErrFailedPrecondition.WithMessage("this node has no TPM 2.0")
	// ErrNonce is returned for a nonce of another length than MinNonce to MaxNonce,
	// and for one that looks like what Binding returns.
	ErrNonce = errdefs.ErrInvalidArgument.WithMessage("a nonce has 16 to 64 random bytes")
	// ErrEvidence is wrapped by all errors of Verify: nothing that the evidence says
	// is proved.
	ErrEvidence = errors.New("the node's evidence proves nothing")
	// ErrMismatch is wrapped by the errors of Compare.
	ErrMismatch = errors.New("the node did not boot what was expected")
)

// Bounds on nonces, in bytes.
const (
	MinNonce = 16
	MaxNonce = 64
)

// bound begins the qualifying data of quotes that are bound to a request. No nonce
// of a caller may begin so, or a reader could have a request of its own bound.
const bound = "\x00request"

// Binding is the qualifying data of a quote that is bound to a request for a
// certificate, in place of a nonce. Its 32 bytes fit TPMs that know no longer
// digest than SHA-256.
func Binding(nonce, request []byte) []byte {
	of := sha256.Sum256(request)
	sum := sha256.Sum256(append(of[:], nonce...))
	return append([]byte(bound), sum[:sha256.Size-len(bound)]...)
}

func checkNonce(nonce []byte) error {
	if len(nonce) < MinNonce || len(nonce) > MaxNonce || bytes.HasPrefix(nonce, []byte(bound)) {
		return ErrNonce
	}
	return nil
}

// Registers is how many of the first registers a quote holds: those that firmware,
// boot loader and kernel write. The others are free for programs.
const Registers = 16

// Evidence is what a TPM says of its machine. Public, Quote and Signature have the
// TPM's own encoding (TPM 2.0 Library, part 2): TPMT_PUBLIC, TPMS_ATTEST and
// TPMT_SIGNATURE.
type Evidence struct {
	Public    []byte
	Quote     []byte
	Signature []byte
	// PCRs are the registers of the SHA-256 bank, in order from 0, which the quote
	// signs the digest of.
	PCRs [][]byte
}

// maxPart bounds each part of evidence in bytes; the largest, an RSA public key,
// takes under 1 KiB.
const maxPart = 4 << 10

// selection chooses registers of the SHA-256 bank.
func selection(pcrs ...uint) tpm2.TPMLPCRSelection {
	return tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{
		{Hash: tpm2.TPMAlgSHA256, PCRSelect: tpm2.PCClientCompatible.PCRs(pcrs...)},
	}}
}

// quoted selects what a quote holds.
func quoted() tpm2.TPMLPCRSelection {
	all := make([]uint, Registers)
	for i := range all {
		all[i] = uint(i)
	}
	return selection(all...)
}

// digestOf is what a TPM signs of registers.
func digestOf(pcrs [][]byte) []byte {
	h := sha256.New()
	for _, pcr := range pcrs {
		h.Write(pcr)
	}
	return h.Sum(nil)
}
