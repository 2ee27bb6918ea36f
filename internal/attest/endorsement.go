package attest

import (
	"encoding/asn1"
	"errors"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// endorsementKeys are the keys for which makers put certificates into a TPM: the
// index of its non-volatile memory, and the template of the key (TCG EK Credential
// Profile for TPM 2.0, section 2.2.1.4, low range, templates L-1 and L-2).
func endorsementKeys() []endorsementKey {
	return []endorsementKey{{0x01C00002, tpm2.RSAEKTemplate}, {0x01C0000A, tpm2.ECCEKTemplate}}
}

type endorsementKey struct {
	index    tpm2.TPMHandle
	template tpm2.TPMTPublic
}

// Bounds on what a TPM holds, in bytes.
const (
	maxEndorsement = 8 << 10
	nvChunk        = 512 // what each TPM reads at a time
)

// Endorsements returns the certificates, in DER, that the TPM's maker put into it for
// its endorsement keys; none where it did not.
func Endorsements(tpm transport.TPM) ([][]byte, error) {
	var found [][]byte
	for _, k := range endorsementKeys() {
		raw, err := readNV(tpm, k.index)
		if err != nil {
			return nil, fmt.Errorf("read the endorsement certificate at index %#x of the TPM: %w", uint32(k.index), err)
		}
		if len(raw) > 0 {
			found = append(found, raw)
		}
	}
	return found, nil
}

// readNV reads an index of the TPM's memory; nil where there is none, or it was never
// written.
func readNV(tpm transport.TPM, index tpm2.TPMHandle) ([]byte, error) {
	public, err := tpm2.NVReadPublic{NVIndex: index}.Execute(tpm)
	if errors.Is(err, tpm2.TPMRCHandle) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	area, err := public.NVPublic.Contents()
	if err != nil {
		return nil, err
	}
	if !area.Attributes.Written {
		return nil, nil
	}
	if area.DataSize > maxEndorsement {
		return nil, fmt.Errorf("it has %d bytes, at most %d are read", area.DataSize, maxEndorsement)
	}
	var raw []byte
	for len(raw) < int(area.DataSize) {
		read, err := tpm2.NVRead{
			AuthHandle: tpm2.AuthHandle{Handle: index, Name: public.NVName, Auth: tpm2.PasswordAuth(nil)},
			NVIndex:    tpm2.NamedHandle{Handle: index, Name: public.NVName},
			Size:       min(nvChunk, area.DataSize-uint16(len(raw))), Offset: uint16(len(raw)),
		}.Execute(tpm)
		if err != nil {
			return nil, err
		}
		if len(read.Data.Buffer) == 0 {
			return nil, errors.New("the TPM reads nothing")
		}
		raw = append(raw, read.Data.Buffer...)
	}
	return trim(raw), nil
}

// trim cuts off what fills the rest of the index behind a certificate.
func trim(raw []byte) []byte {
	var first asn1.RawValue
	if _, err := asn1.Unmarshal(raw, &first); err != nil {
		return raw // the client says what is wrong with it
	}
	return first.FullBytes
}

// Challenge is a secret that only the TPM with one endorsement key can open, and
// only for its own attestation key: the parameters of TPM2_ActivateCredential.
type Challenge struct {
	Endorsement []byte // the certificate of the endorsement key, DER
	Credential  []byte // TPMS_ID_OBJECT
	Secret      []byte // encrypted seed
}

// ErrChallenge is returned by Activate for a challenge that is not for this TPM.
var ErrChallenge = errdefs.ErrFailedPrecondition.WithMessage("the TPM does not open the challenge: it is for another endorsement key or attestation key")

// Activate opens a challenge: the attestation key and the endorsement key are of one
// TPM. The caller must not use the TPM at the same time.
func Activate(tpm transport.TPM, c Challenge) (secret []byte, err error) {
	if max(len(c.Credential), len(c.Secret), len(c.Endorsement)) > maxEndorsement {
		return nil, fmt.Errorf("%w: it is too long", ErrChallenge)
	}
	for _, k := range endorsementKeys() {
		raw, err := readNV(tpm, k.index)
		if err == nil && len(raw) > 0 && string(raw) == string(c.Endorsement) {
			return activate(tpm, k.template, c)
		}
	}
	return nil, fmt.Errorf("%w: the TPM does not have that certificate", ErrChallenge)
}

func activate(tpm transport.TPM, endorsement tpm2.TPMTPublic, c Challenge) (secret []byte, err error) {
	ek, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHEndorsement, InPublic: tpm2.New2B(endorsement)}.Execute(tpm)
	if err != nil {
		return nil, fmt.Errorf("make the TPM's endorsement key: %w", err)
	}
	ak, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHEndorsement, InPublic: tpm2.New2B(template())}.Execute(tpm)
	if err != nil {
		_, flushed := tpm2.FlushContext{FlushHandle: ek.ObjectHandle}.Execute(tpm)
		return nil, errors.Join(fmt.Errorf("make the TPM's attestation key: %w", err), flushed)
	}
	defer func() {
		for _, handle := range []tpm2.TPMHandle{ak.ObjectHandle, ek.ObjectHandle} {
			_, flushed := tpm2.FlushContext{FlushHandle: handle}.Execute(tpm)
			err = errors.Join(err, flushed)
		}
	}()
	opened, err := tpm2.ActivateCredential{
		ActivateHandle: tpm2.AuthHandle{Handle: ak.ObjectHandle, Name: ak.Name, Auth: tpm2.PasswordAuth(nil)},
		KeyHandle:      tpm2.AuthHandle{Handle: ek.ObjectHandle, Name: ek.Name, Auth: tpm2.Policy(tpm2.TPMAlgSHA256, 16, endorsementPolicy)},
		CredentialBlob: tpm2.TPM2BIDObject{Buffer: c.Credential},
		Secret:         tpm2.TPM2BEncryptedSecret{Buffer: c.Secret},
	}.Execute(tpm)
	if err != nil {
		return nil, fmt.Errorf("%w (%w)", ErrChallenge, err)
	}
	return opened.CertInfo.Buffer, nil
}

// endorsementPolicy is that of the templates: the authorization of the endorsement
// hierarchy, which is empty.
func endorsementPolicy(tpm transport.TPM, session tpm2.TPMISHPolicy, nonce tpm2.TPM2BNonce) error {
	_, err := tpm2.PolicySecret{
		AuthHandle:    tpm2.AuthHandle{Handle: tpm2.TPMRHEndorsement, Auth: tpm2.PasswordAuth(nil)},
		PolicySession: session, NonceTPM: nonce,
	}.Execute(tpm)
	return err
}
