package main

import (
	"crypto/rand"
	"crypto/tls"
	"encoding/base32"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

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
)

// identify adds the node's own key to a Machine that has none.
func (o *options) identify(machine *object.Machine) error {
	api := &machine.Spec.API
	if api.Key != "" {
		return nil
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
