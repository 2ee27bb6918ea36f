package attest

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
	"github.com/google/go-tpm/tpm2/transport/linuxtpm"
)

// Device is the kernel's TPM with its resource manager.
const Device = "/dev/tpmrm0"

// attempts is how often Quote starts over when a register changes meanwhile.
const attempts = 3

// Open opens the machine's TPM, or returns ErrNoTPM.
func Open() (transport.TPMCloser, error) { return open(Device) }

func open(device string) (transport.TPMCloser, error) {
	tpm, err := linuxtpm.Open(device)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w: switch it on in the firmware; a local machine gets one with oscine machine start --tpm", ErrNoTPM)
	}
	if err != nil {
		return nil, fmt.Errorf("open the TPM: %w", err)
	}
	return tpm, nil
}

// template is the attestation key: ECDSA on P-256, restricted, which means that it
// signs nothing but what the TPM itself has made. A TPM derives the same key of it
// as long as it keeps its endorsement seed, so that no file holds it.
func template() tpm2.TPMTPublic {
	purpose := sha256.Sum256([]byte("oscine attestation key"))
	return tpm2.TPMTPublic{
		Type: tpm2.TPMAlgECC, NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{
			FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, NoDA: true,
			Restricted: true, SignEncrypt: true,
		},
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
			CurveID: tpm2.TPMECCNistP256,
			Scheme: tpm2.TPMTECCScheme{
				Scheme:  tpm2.TPMAlgECDSA,
				Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSigSchemeECDSA{HashAlg: tpm2.TPMAlgSHA256}),
			},
		}),
		Unique: tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{
			X: tpm2.TPM2BECCParameter{Buffer: purpose[:]}, Y: tpm2.TPM2BECCParameter{Buffer: make([]byte, 32)},
		}),
	}
}

// Quote has the TPM sign its registers with the nonce. The caller must not use the
// TPM at the same time.
func Quote(tpm transport.TPM, nonce []byte) (*Evidence, error) {
	if err := checkNonce(nonce); err != nil {
		return nil, err
	}
	return quote(tpm, nonce)
}

// QuoteRequest has the TPM sign its registers with the nonce and a request for a
// certificate, so that both are of one machine: verify it with what Binding returns. The
// caller must not use the TPM at the same time.
func QuoteRequest(tpm transport.TPM, nonce, request []byte) (*Evidence, error) {
	if err := checkNonce(nonce); err != nil {
		return nil, err
	}
	return quote(tpm, Binding(nonce, request))
}

// quote has the TPM sign its registers with qualifying data.
func quote(tpm transport.TPM, qualifying []byte) (e *Evidence, err error) {
	key, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHEndorsement, InPublic: tpm2.New2B(template())}.Execute(tpm)
	if err != nil {
		return nil, fmt.Errorf("make the TPM's attestation key: %w", err)
	}
	defer func() {
		_, flushed := tpm2.FlushContext{FlushHandle: key.ObjectHandle}.Execute(tpm)
		err = errors.Join(err, flushed)
	}()
	public, err := key.OutPublic.Contents()
	if err != nil {
		return nil, fmt.Errorf("read the TPM's attestation key: %w", err)
	}
	for range attempts {
		e = &Evidence{Public: tpm2.Marshal(*public)}
		if e.PCRs, err = readRegisters(tpm); err != nil {
			return nil, err
		}
		q, err := tpm2.Quote{
			SignHandle:     tpm2.AuthHandle{Handle: key.ObjectHandle, Name: key.Name, Auth: tpm2.PasswordAuth(nil)},
			QualifyingData: tpm2.TPM2BData{Buffer: qualifying},
			InScheme:       tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgNull},
			PCRSelect:      quoted(),
		}.Execute(tpm)
		if err != nil {
			return nil, fmt.Errorf("have the TPM sign its registers: %w", err)
		}
		e.Quote, e.Signature = q.Quoted.Bytes(), tpm2.Marshal(q.Signature)
		attested, err := q.Quoted.Contents()
		if err != nil {
			return nil, err
		}
		info, err := attested.Attested.Quote()
		if err != nil {
			return nil, err
		}
		if bytes.Equal(info.PCRDigest.Buffer, digestOf(e.PCRs)) {
			return e, nil
		}
	}
	return nil, errors.New("the TPM's registers change faster than they can be read: ask again")
}

// readRegisters reads the SHA-256 bank; a TPM tells a few registers at a time.
func readRegisters(tpm transport.TPM) ([][]byte, error) {
	pcrs := make([][]byte, Registers)
	for i := range pcrs {
		read, err := tpm2.PCRRead{PCRSelectionIn: selection(uint(i))}.Execute(tpm)
		if err != nil {
			return nil, fmt.Errorf("read register %d of the TPM: %w", i, err)
		}
		if len(read.PCRValues.Digests) != 1 || len(read.PCRValues.Digests[0].Buffer) != sha256.Size {
			return nil, fmt.Errorf("%w with a SHA-256 bank: switch that bank on in the firmware", ErrNoTPM)
		}
		pcrs[i] = read.PCRValues.Digests[0].Buffer
	}
	return pcrs, nil
}
