package secureboot

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/google/uuid"

	"oscine.dev/oscine/internal/durable"
	"oscine.dev/oscine/internal/uki"
)

// Variables are the firmware's variables in the order in which each may change
// the next: the platform key, the key exchange key, and the database of keys
// whose programs the firmware starts.
func Variables() []string { return []string{"PK", "KEK", "db"} }

// EnrolFolder is where systemd-boot looks for the variables' files on the ESP
// (systemd-boot(7), secure-boot-enroll).
const EnrolFolder = "/loader/keys/auto"

// maxFile bounds a file that is read here, in bytes.
const maxFile = 1 << 20

// Generate makes the three keys and their files in a folder: NAME.pem, the private
// key and its certificate, for its owner alone; NAME.crt, the certificate;
// NAME.esl, the variable's content; and NAME.auth, the same signed, which firmware
// in setup mode takes. trusted are certificates whose programs the firmware starts
// beside those signed by db. A folder that holds any of them is an error: keys are
// never overwritten.
func Generate(dir, owner string, trusted []*x509.Certificate) (map[string]*x509.Certificate, error) {
	if err := durable.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	for _, name := range Variables() {
		for _, suffix := range []string{".pem", ".crt", ".esl", ".auth"} {
			if _, err := os.Lstat(filepath.Join(dir, name+suffix)); err == nil {
				return nil, fmt.Errorf("%s holds %s already: name another folder, or move the old keys away", dir, name+suffix)
			}
		}
	}
	id, at := uuid.New(), time.Now()
	made := map[string]*x509.Certificate{}
	var signer *uki.Key // of the variable before, which may change this one
	for _, name := range Variables() {
		key, err := uki.NewKey(owner + " " + name)
		if err != nil {
			return nil, err
		}
		if signer == nil {
			signer = key // the platform key signs itself
		}
		certificates, vendor := []*x509.Certificate{key.Certificate()}, globalVariables
		if name == "db" {
			certificates, vendor = append(certificates, trusted...), securityDatabase
		}
		list := signatureList(id, certificates)
		auth, err := authenticated(name, vendor, list, at, signer)
		if err != nil {
			return nil, err
		}
		text, err := key.PEM()
		if err != nil {
			return nil, err
		}
		base := filepath.Join(dir, name)
		err = errors.Join(
			durable.WriteFile(base+".pem", text, 0o600),
			durable.WriteFile(base+".crt", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: key.Certificate().Raw}), 0o644),
			durable.WriteFile(base+".esl", list, 0o644),
			durable.WriteFile(base+".auth", auth, 0o644),
		)
		if err != nil {
			return nil, err
		}
		made[name], signer = key.Certificate(), key
	}
	return made, nil
}

// Load reads what building an image takes from a folder that Generate filled: the
// key of db, which signs what the firmware starts, and the variables' files. The
// private keys of PK and KEK may be elsewhere.
func Load(dir string) (*uki.Key, map[string][]byte, error) {
	files := map[string][]byte{}
	for _, name := range Variables() {
		file := filepath.Join(dir, name+".auth")
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, nil, fmt.Errorf("keys of Secure Boot: %w: make some with oscine keys secureboot", err)
		}
		if len(text) < 40 || len(text) > maxFile {
			return nil, nil, fmt.Errorf("keys of Secure Boot: %s is not a signed variable", file)
		}
		files[name] = text
	}
	file := filepath.Join(dir, "db.pem")
	key, err := uki.LoadKey(file)
	if err != nil {
		return nil, nil, err
	}
	if !trusts(files["db"], key.Certificate()) {
		return nil, nil, fmt.Errorf("keys of Secure Boot: %s does not hold the certificate of %s, so the firmware would refuse what that signs: take both from one run of oscine keys secureboot", filepath.Join(dir, "db.auth"), file)
	}
	return key, files, nil
}

// ReadCertificate reads a certificate, PEM or DER.
func ReadCertificate(file string) (*x509.Certificate, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	if block, _ := pem.Decode(text); block != nil {
		text = block.Bytes
	}
	c, err := x509.ParseCertificate(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return c, nil
}
