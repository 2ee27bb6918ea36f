package encryption

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"oscine.dev/oscine/internal/attest"
)

// Registers of the TPM that the key is sealed to. Firmware extends the first by Secure
// Boot's state and keys, and by which of these signed what was started; see
// RATIONALE.md. The second is zero until Close has extended it.
const (
	secureBootPCR = 7
	closingPCR    = 15
)

// sealed is a secret that only the TPM that sealed it can open again, as parts of a
// TPM's own encoding (TPM2B_PUBLIC and TPM2B_PRIVATE without their sizes).
type sealed struct {
	Public  []byte `json:"public"`
	Private []byte `json:"private"`
}

// errChanged is returned by unseal when the TPM is the same and what the firmware
// started, or its Secure Boot settings, are not.
var errChanged = errors.New("the TPM's register 7 is another: the firmware's Secure Boot settings or keys have changed since the key was sealed")

// storageKey has the TPM derive its storage key, which is the same one until somebody
// clears the TPM. The caller flushes it.
func storageKey(tpm transport.TPM) (*tpm2.CreatePrimaryResponse, *tpm2.TPMTPublic, error) {
	key, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(tpm2.ECCSRKTemplate)}.Execute(tpm)
	if err != nil {
		return nil, nil, fmt.Errorf("make the TPM's storage key: %w", err)
	}
	public, err := key.OutPublic.Contents()
	if err != nil {
		return nil, nil, errors.Join(err, flush(tpm, key.ObjectHandle))
	}
	return key, public, nil
}

func flush(tpm transport.TPM, handle tpm2.TPMHandle) error {
	_, err := tpm2.FlushContext{FlushHandle: handle}.Execute(tpm)
	return err
}

func selection() tpm2.TPMLPCRSelection {
	return tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{
		{Hash: tpm2.TPMAlgSHA256, PCRSelect: tpm2.PCClientCompatible.PCRs(secureBootPCR, closingPCR)},
	}}
}

// register reads one register of the SHA-256 bank.
func register(tpm transport.TPM, pcr uint) ([]byte, error) {
	read, err := tpm2.PCRRead{PCRSelectionIn: tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{
		{Hash: tpm2.TPMAlgSHA256, PCRSelect: tpm2.PCClientCompatible.PCRs(pcr)},
	}}}.Execute(tpm)
	if err != nil {
		return nil, fmt.Errorf("read register %d of the TPM: %w", pcr, err)
	}
	if len(read.PCRValues.Digests) != 1 || len(read.PCRValues.Digests[0].Buffer) != sha256.Size {
		return nil, fmt.Errorf("%w with a SHA-256 bank: switch that bank on in the firmware", attest.ErrNoTPM)
	}
	return read.PCRValues.Digests[0].Buffer, nil
}

// policy is the digest of what unseal does, with register 7 as it is now and the
// closing register as it is before Close.
func policy(tpm transport.TPM) ([]byte, error) {
	current, err := register(tpm, secureBootPCR)
	if err != nil {
		return nil, err
	}
	registers := sha256.Sum256(append(bytes.Clone(current), make([]byte, sha256.Size)...))
	calculator, err := tpm2.NewPolicyCalculator(tpm2.TPMAlgSHA256)
	if err != nil {
		return nil, err
	}
	err = tpm2.PolicyPCR{PcrDigest: tpm2.TPM2BDigest{Buffer: registers[:]}, Pcrs: selection()}.Update(calculator)
	return calculator.Hash().Digest, err
}

// seal has the TPM seal a secret of at most 128 bytes. What passes between the
// processor and the TPM is encrypted.
func seal(tpm transport.TPM, secret []byte) (s *sealed, err error) {
	digest, err := policy(tpm)
	if err != nil {
		return nil, err
	}
	parent, public, err := storageKey(tpm)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, flush(tpm, parent.ObjectHandle)) }()
	session := tpm2.HMAC(tpm2.TPMAlgSHA256, 16, tpm2.AESEncryption(128, tpm2.EncryptIn), tpm2.Salted(parent.ObjectHandle, *public))
	made, err := tpm2.Create{
		ParentHandle: tpm2.AuthHandle{Handle: parent.ObjectHandle, Name: parent.Name, Auth: session},
		InSensitive:  tpm2.TPM2BSensitiveCreate{Sensitive: &tpm2.TPMSSensitiveCreate{Data: tpm2.NewTPMUSensitiveCreate(&tpm2.TPM2BSensitiveData{Buffer: secret})}},
		InPublic: tpm2.New2B(tpm2.TPMTPublic{
			Type: tpm2.TPMAlgKeyedHash, NameAlg: tpm2.TPMAlgSHA256,
			ObjectAttributes: tpm2.TPMAObject{FixedTPM: true, FixedParent: true, NoDA: true},
			AuthPolicy:       tpm2.TPM2BDigest{Buffer: digest},
		}),
	}.Execute(tpm)
	if err != nil {
		return nil, fmt.Errorf("have the TPM seal the key: %w", err)
	}
	return &sealed{made.OutPublic.Bytes(), made.OutPrivate.Buffer}, nil
}

// unseal is the reverse of seal.
func unseal(tpm transport.TPM, s *sealed) (secret []byte, err error) {
	parent, public, err := storageKey(tpm)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, flush(tpm, parent.ObjectHandle)) }()
	object, err := tpm2.Load{
		ParentHandle: tpm2.AuthHandle{Handle: parent.ObjectHandle, Name: parent.Name, Auth: tpm2.PasswordAuth(nil)},
		InPrivate:    tpm2.TPM2BPrivate{Buffer: s.Private},
		InPublic:     tpm2.BytesAs2B[tpm2.TPMTPublic](s.Public),
	}.Execute(tpm)
	if err != nil {
		return nil, fmt.Errorf("the key was sealed by another TPM, or this one was cleared since (%w)", err)
	}
	defer func() { err = errors.Join(err, flush(tpm, object.ObjectHandle)) }()
	session, done, err := tpm2.PolicySession(tpm, tpm2.TPMAlgSHA256, 16, tpm2.AESEncryption(128, tpm2.EncryptOut), tpm2.Salted(parent.ObjectHandle, *public))
	if err != nil {
		return nil, fmt.Errorf("start a session with the TPM: %w", err)
	}
	defer func() { err = errors.Join(err, done()) }()
	if _, err := (tpm2.PolicyPCR{PolicySession: session.Handle(), Pcrs: selection()}).Execute(tpm); err != nil {
		return nil, fmt.Errorf("tell the TPM what was started: %w", err)
	}
	opened, err := tpm2.Unseal{ItemHandle: tpm2.AuthHandle{Handle: object.ObjectHandle, Name: object.Name, Auth: session}}.Execute(tpm)
	if errors.Is(err, tpm2.TPMRCPolicyFail) {
		if now, err := register(tpm, closingPCR); err == nil && !bytes.Equal(now, make([]byte, sha256.Size)) {
			return nil, errors.New("the TPM gives the key once in a boot, before anything else runs")
		}
		return nil, errChanged
	}
	if err != nil {
		return nil, fmt.Errorf("have the TPM open the key: %w", err)
	}
	return opened.OutData.Buffer, nil
}

// closeKey has the TPM give the key to nobody before the machine starts again.
func closeKey(tpm transport.TPM) error {
	now, err := register(tpm, closingPCR)
	if err != nil || !bytes.Equal(now, make([]byte, sha256.Size)) {
		return err // it is closed
	}
	digest := sha256.Sum256([]byte("oscine: no key of the data partition from here on"))
	_, err = tpm2.PCRExtend{
		PCRHandle: tpm2.AuthHandle{Handle: tpm2.TPMHandle(closingPCR), Auth: tpm2.PasswordAuth(nil)},
		Digests:   tpm2.TPMLDigestValues{Digests: []tpm2.TPMTHA{{HashAlg: tpm2.TPMAlgSHA256, Digest: digest[:]}}},
	}.Execute(tpm)
	if err != nil {
		return fmt.Errorf("close the key in the TPM: %w", err)
	}
	return nil
}
