package main

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base32"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"oscine.dev/oscine/internal/durable"
	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/pki"
)

// Files of the state folder beside the Machine file.
const (
	// keyFile is the key that the node made for itself, as PEM.
	keyFile = "node.key"
	// authorityFile is the authority of the last configuration that was good, as
	// PEM: whose admins the node obeys when it cannot read its configuration.
	authorityFile = "authority.crt"
	// certificateFile is the certificate for that key, as PEM, of a node whose
	// Machine file has none.
	certificateFile = "node.crt"
)

// errNoCertificate says that the node has its manifest, and its owner has yet to
// sign a certificate for its key.
var errNoCertificate = errors.New("this node waits for its certificate")

// identify adds the node's own key to a Machine that has none, and its certificate.
// It returns errNoCertificate where there is none for that key by the Machine's
// authority.
func (o *options) identify(machine *object.Machine) error {
	api := &machine.Spec.API
	if api.Key != "" {
		return nil
	}
	if api.Certificate == "" {
		return o.signed(api)
	}
	key, err := os.ReadFile(filepath.Join(o.state, keyFile))
	if err != nil {
		return fmt.Errorf("spec.api.key: the manifest has none, and the node has not made one: %v", err)
	}
	if _, err := tls.X509KeyPair([]byte(api.Certificate), key); err != nil {
		return fmt.Errorf("spec.api.certificate: is not for this node's key: %w", err)
	}
	api.Key = string(key)
	return nil
}

// signed adds key and certificate from the state folder.
func (o *options) signed(api *object.MachineAPI) error {
	certificate, err := os.ReadFile(filepath.Join(o.state, certificateFile))
	if err != nil {
		return fmt.Errorf("%w (%v)", errNoCertificate, err)
	}
	key, err := os.ReadFile(filepath.Join(o.state, keyFile))
	if err != nil {
		return fmt.Errorf("%w (%v)", errNoCertificate, err)
	}
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		return fmt.Errorf("%w (%v)", errNoCertificate, err)
	}
	authority, err := pki.Pool([]byte(api.CA))
	if err != nil {
		return fmt.Errorf("spec.api.ca: %w", err)
	}
	// Expiry is a matter of the API: the clock may be wrong here.
	if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: authority, CurrentTime: pair.Leaf.NotBefore}); err != nil {
		return fmt.Errorf("%w (%v)", errNoCertificate, err)
	}
	api.Certificate, api.Key = string(certificate), string(key)
	return nil
}

// keep stores a configuration that the owner has sent: the Machine file, unless
// one was named on the command line, and the certificate for the node's key.
func (o *options) keep(manifest string, log *slog.Logger) error {
	machine, err := object.ParseMachine(strings.NewReader(manifest))
	if err != nil {
		return err
	}
	if err := o.encrypt(machine, false, log); err != nil {
		return err
	}
	if err := durable.WriteFile(filepath.Join(o.state, certificateFile), []byte(machine.Spec.API.Certificate), 0o644); err != nil {
		return err
	}
	if o.config != "" {
		return nil
	}
	return durable.WriteFile(o.storedMachine(), []byte(manifest), 0o600)
}

// ownKey returns the key that the node made for itself; it makes one where there
// is none that can be read.
func (o *options) ownKey() ([]byte, error) {
	path := filepath.Join(o.state, keyFile)
	key, err := os.ReadFile(path)
	if err == nil {
		if _, err := pki.NewRequest(key); err == nil {
			return key, nil
		}
	}
	if key, err = pki.NewKey(); err != nil {
		return nil, err
	}
	return key, durable.WriteFile(path, key, 0o600)
}

// rememberAuthority keeps the authority of a configuration that is good. A disk
// that is full is no reason not to come up with it.
func (o *options) rememberAuthority(machine *object.Machine, log *slog.Logger) {
	if o.authority() == machine.Spec.API.CA {
		return
	}
	if err := durable.WriteFile(filepath.Join(o.state, authorityFile), []byte(machine.Spec.API.CA), 0o600); err != nil {
		log.Error("cannot keep the node's authority", "error", err)
	}
}

// authority is what rememberAuthority kept; empty where it kept nothing.
func (o *options) authority() string {
	text, err := os.ReadFile(filepath.Join(o.state, authorityFile))
	if errors.Is(err, os.ErrNotExist) {
		return ""
	}
	if err != nil || len(text) == 0 {
		return "unreadable" // the node had one: it is not open
	}
	return string(text)
}

// consoleCode is what only a person who reads the node's console knows: 80 bits,
// for one start of the daemon.
func consoleCode() string {
	var raw [10]byte
	_, _ = rand.Read(raw[:]) // never fails, see crypto/rand
	text := base32.NewEncoding("ABCDEFGHJKMNPQRSTVWXYZ0123456789").EncodeToString(raw[:])
	return text[:4] + "-" + text[4:8] + "-" + text[8:12] + "-" + text[12:]
}
