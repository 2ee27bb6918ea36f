package main

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/pki"
	"oscine.dev/oscine/internal/release"
)

// sealedMachine is a Machine whose data partition is to be encrypted.
func sealedMachine() *object.Machine {
	m := &object.Machine{}
	m.Spec.Storage.Encryption = object.EncryptionTPM
	return m
}

// A data partition that something has used is never erased, whatever a Machine wants.
func TestEncryptionOfAUsedPartition(t *testing.T) {
	o := testNode(t)
	for _, name := range []string{release.MachineFile, keyFile, certificateFile, authorityFile, "boot-attempts", release.BootLogFile} {
		write(t, filepath.Join(o.state, name), "x")
	}
	if unused, err := o.unused(); !unused || err != nil {
		t.Errorf("what a new node has counts as used: %v", err)
	}
	write(t, filepath.Join(o.state, "objects"), "x")
	if unused, err := o.unused(); unused || err != nil {
		t.Errorf("used: got %t, %v", unused, err)
	}
	err := o.encrypt(sealedMachine(), true, slog.New(slog.DiscardHandler))
	if !errors.Is(err, errEncryption) || !strings.Contains(err.Error(), "oscine reset") {
		t.Errorf("got %v", err)
	}
	if err := o.encrypt(&object.Machine{}, true, slog.New(slog.DiscardHandler)); err != nil {
		t.Errorf("not asked for: got %v", err)
	}
	if _, err := os.Stat(filepath.Join(o.state, "objects")); err != nil {
		t.Error(err)
	}
}

func TestCheckEncryption(t *testing.T) {
	o := testNode(t)
	if err := o.checkEncryption(sealedMachine()); !errors.Is(err, errEncryption) || !strings.Contains(err.Error(), "in use and not encrypted") {
		t.Errorf("on the image: got %v", err)
	}
	o.hosted = true
	if err := o.checkEncryption(sealedMachine()); !errors.Is(err, errEncryption) || !strings.Contains(err.Error(), "hosted") {
		t.Errorf("hosted: got %v", err)
	}
	if err := o.checkEncryption(&object.Machine{}); err != nil {
		t.Errorf("not asked for: got %v", err)
	}
}

// A Machine that wants what this machine cannot do is not used: its owner is told why,
// and may send another.
func TestRefusedEncryption(t *testing.T) {
	o := testNode(t)
	ca := authority(t)
	node, err := pki.NewNode(ca, "edge1", nil)
	if err != nil {
		t.Fatal(err)
	}
	write(t, o.storedMachine(), manifest(ca, node.Certificate, node.Key)+"  storage: {encryption: tpm}\n")
	write(t, filepath.Join(o.state, "objects"), "x")
	found, err := findMachine(o, slog.New(slog.DiscardHandler))
	if found != nil || !errors.Is(err, errEncryption) {
		t.Fatalf("got %v, %v", found, err)
	}
	m, err := o.maintenance(found, err, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(m.Closed, "cannot use its configuration") || !strings.Contains(m.Closed, "oscine reset") || m.Authority != string(ca.Certificate) || m.Code == "" {
		t.Errorf("closed: %q, code %q", m.Closed, m.Code)
	}
}
