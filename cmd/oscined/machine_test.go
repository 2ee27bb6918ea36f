package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"oscine.dev/oscine/internal/api"
	"oscine.dev/oscine/internal/api/oscinepb"
	"oscine.dev/oscine/internal/client"
	"oscine.dev/oscine/internal/pki"
	"oscine.dev/oscine/internal/release"
)

// testNode are the options of a node whose data partition is mounted.
func testNode(t *testing.T) *options {
	t.Helper()
	o := &options{state: t.TempDir(), run: t.TempDir(), logs: t.TempDir()}
	facts := release.Facts{Slot: release.PartitionRootA, Data: "vda4"}
	write(t, filepath.Join(o.run, release.FactsFile), facts.String())
	return o
}

func write(t *testing.T, name, content string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func authority(t *testing.T) pki.Pair {
	t.Helper()
	pair, err := pki.NewAuthority("test")
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

// manifest is a Machine; an empty key is left out.
func manifest(ca pki.Pair, certificate, key []byte) string {
	text := fmt.Sprintf("apiVersion: oscine.dev/v1\nkind: Machine\nmetadata: {name: edge1}\nspec:\n  api:\n    ca: %q\n    certificate: %q\n", ca.Certificate, certificate)
	if len(key) > 0 {
		text += fmt.Sprintf("    key: %q\n", key)
	}
	return text
}

// configure sends the node a configuration of ca, as a client that has own and code.
func configure(t *testing.T, address string, ca pki.Pair, own *client.Context, code string) error {
	t.Helper()
	node, err := client.DialMaintenance(t.Context(), address, own)
	if err != nil {
		t.Fatal(err)
	}
	asks, err := node.Describe(t.Context(), connect.NewRequest(&oscinepb.DescribeRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := pki.SignNode(ca, []byte(asks.Msg.CertificateRequest), node.Certificate, "edge1", nil, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	_, err = node.Configure(t.Context(), connect.NewRequest(&oscinepb.ConfigureRequest{Manifest: manifest(ca, certificate, nil), ConsoleCode: code}))
	return err
}

// waiting serves maintenance mode as the daemon does after findMachine failed.
func waiting(t *testing.T, o *options) (m *api.Maintenance, address string, ended chan error) {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	machine, why := findMachine(o, log)
	if why == nil {
		t.Fatalf("the node has a configuration: %v", machine)
	}
	m, err := o.maintenance(machine, why, log)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	ended = make(chan error, 1)
	go func() {
		_, err := m.Serve(ctx, l)
		ended <- err
	}()
	return m, l.Addr().String(), ended
}

// TestFirstConfiguration: a node that never was configured takes the first one
// that comes; its key never travels; and when it cannot read the configuration
// later, it knows its owner.
func TestFirstConfiguration(t *testing.T) {
	o, mine := testNode(t), authority(t)
	m, address, ended := waiting(t, o)
	if m.Closed != "" {
		t.Fatalf("a new node is closed: %s", m.Closed)
	}
	if err := configure(t, address, mine, nil, ""); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	machine, err := findMachine(o, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tls.X509KeyPair([]byte(machine.Spec.API.Certificate), []byte(machine.Spec.API.Key)); err != nil {
		t.Errorf("the node's identity: %v", err)
	}
	stored, err := os.ReadFile(o.storedMachine())
	if err != nil || bytes.Contains(stored, []byte("PRIVATE KEY")) {
		t.Errorf("the configuration that travelled holds a key: %s, %v", stored, err)
	}
	for _, name := range []string{o.storedMachine(), filepath.Join(o.state, keyFile)} { // others may not read it
		if info, err := os.Stat(name); err != nil {
			t.Error(err)
		} else if got := info.Mode().Perm(); got != 0o600 {
			t.Errorf("%s: got %v, want -rw-------", name, got)
		}
	}
}

// A node that boots with a manifest without certificate makes its own key, is
// recognised by the join token, and takes its certificate from its owner alone;
// no key has been anywhere but on the node.
func TestJoin(t *testing.T) {
	for _, hosted := range []bool{false, true} {
		o, mine, theirs := testNode(t), authority(t), authority(t)
		file := o.storedMachine()
		if hosted {
			file = filepath.Join(t.TempDir(), "machine.yaml")
			o.config = file
		}
		token := pki.NewJoinToken()
		booted := strings.Replace(manifest(mine, nil, nil), "    certificate: \"\"\n", "    joinToken: "+token+"\n", 1)
		write(t, file, booted)
		m, address, ended := waiting(t, o)
		node, err := client.DialMaintenance(t.Context(), address, nil)
		if err != nil {
			t.Fatal(err)
		}
		asks, err := node.Describe(t.Context(), connect.NewRequest(&oscinepb.DescribeRequest{}))
		if err != nil {
			t.Fatal(err)
		}
		shown := node.Certificate.Raw
		if !pki.ProvesJoin(token, shown, asks.Msg.JoinProof) || pki.ProvesJoin(pki.NewJoinToken(), shown, asks.Msg.JoinProof) || pki.ProvesJoin(token, []byte("another"), asks.Msg.JoinProof) {
			t.Error("the node is not recognised, or another is too")
		}
		if strings.Contains(m.Closed, "cannot read") {
			t.Errorf("it waits because %s", m.Closed)
		}
		for who, err := range map[string]error{
			"a stranger":             configure(t, address, theirs, nil, ""),
			"an admin of another":    configure(t, address, theirs, contextOf(t, theirs, pki.Admin), ""),
			"an operator of its own": configure(t, address, mine, contextOf(t, mine, pki.Operator), ""),
		} {
			if connect.CodeOf(err) != connect.CodePermissionDenied {
				t.Errorf("%s: got %v, want a refusal", who, err)
			}
		}
		if err := configure(t, address, mine, contextOf(t, mine, pki.Admin), ""); err != nil {
			t.Fatal(err)
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
		log := slog.New(slog.DiscardHandler)
		machine, err := findMachine(o, log)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tls.X509KeyPair([]byte(machine.Spec.API.Certificate), []byte(machine.Spec.API.Key)); err != nil {
			t.Errorf("the node's identity: %v", err)
		}
		// What the hypervisor hands over at each boot stays without a certificate.
		write(t, file, booted)
		if _, err := findMachine(o, log); err != nil {
			t.Errorf("started again: %v", err)
		}
		// Another authority, or a key that is gone, and it asks again.
		write(t, file, strings.Replace(manifest(theirs, nil, nil), "    certificate: \"\"\n", "", 1))
		if _, err := findMachine(o, log); !errors.Is(err, errNoCertificate) {
			t.Errorf("signed by another authority: %v", err)
		}
		write(t, file, booted)
		if err := os.Remove(filepath.Join(o.state, keyFile)); err != nil {
			t.Fatal(err)
		}
		if found, err := findMachine(o, log); !errors.Is(err, errNoCertificate) || found == nil {
			t.Errorf("without its key: %v", err)
		}
	}
}

// TestOwnedNodeRefusesStrangers: whatever keeps a node that has an owner from
// reading its configuration, only the owner gives it another.
func TestOwnedNodeRefusesStrangers(t *testing.T) {
	mine, theirs := authority(t), authority(t)
	node, err := pki.NewNode(mine, "edge1", nil)
	if err != nil {
		t.Fatal(err)
	}
	good := manifest(mine, node.Certificate, node.Key)
	for name, spoil := range map[string]func(o *options){
		"a field of a later release": func(o *options) {
			write(t, o.storedMachine(), strings.Replace(good, "spec:\n", "spec:\n  newField: 1\n", 1))
		},
		"cut short": func(o *options) { write(t, o.storedMachine(), good[:len(good)/2]) },
		"empty":     func(o *options) { write(t, o.storedMachine(), "") },
		"gone":      func(o *options) { os.Remove(o.storedMachine()) },
		"its key gone": func(o *options) {
			write(t, o.storedMachine(), manifest(mine, node.Certificate, nil))
		},
		"data not mounted": func(o *options) {
			os.Remove(o.storedMachine())
			os.Remove(filepath.Join(o.state, authorityFile))
			write(t, filepath.Join(o.run, release.FactsFile), release.Facts{Slot: "root-a"}.String())
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := testNode(t)
			write(t, o.storedMachine(), good)
			if _, err := findMachine(o, slog.New(slog.DiscardHandler)); err != nil {
				t.Fatal(err)
			}
			spoil(o)
			m, address, ended := waiting(t, o)
			for who, err := range map[string]error{
				"a stranger":                      configure(t, address, theirs, nil, ""),
				"an admin of another":             configure(t, address, theirs, contextOf(t, theirs, pki.Admin), ""),
				"an operator of its own":          configure(t, address, mine, contextOf(t, mine, pki.Operator), ""),
				"a client that guesses the code":  configure(t, address, theirs, nil, "AAAA-AAAA-AAAA-AAAA"),
				"a client that sends an odd code": configure(t, address, theirs, nil, strings.Repeat("x", 1000)),
			} {
				if connect.CodeOf(err) != connect.CodePermissionDenied {
					t.Errorf("%s: got %v, want a refusal", who, err)
				}
			}
			own, code := contextOf(t, mine, pki.Admin), ""
			if m.Authority == "" { // the owner is unknown: anyone at the console
				own, code = nil, strings.ToLower(m.Code)
			}
			if err := configure(t, address, mine, own, code); err != nil {
				t.Errorf("the owner: %v", err)
			}
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
	}
}

func contextOf(t *testing.T, ca pki.Pair, role pki.Role) *client.Context {
	t.Helper()
	pair, err := pki.NewClient(ca, "rita", role, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return &client.Context{CA: string(ca.Certificate), Certificate: string(pair.Certificate), Key: string(pair.Key)}
}

// TestCodeIsShown also to a person who has no other way in.
func TestCodeIsShown(t *testing.T) {
	o := testNode(t)
	write(t, o.storedMachine(), "")
	m, err := o.maintenance(nil, errors.New("unreadable"), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	var console bytes.Buffer
	showOnConsole(&console, m, "ab12")
	if !strings.Contains(console.String(), "--console-code "+m.Code) || !strings.Contains(console.String(), "fingerprint is ab12") || len(m.Code) != 19 {
		t.Errorf("the console shows\n%s", console.String())
	}
}

// TestWaits holds that a version on trial that lacks what it needs asks to go back
// before it says READY, and that one which cannot read its configuration never does.
func TestWaits(t *testing.T) {
	for name, test := range map[string]struct {
		trial, closed, found bool
		why                  error
		want                 string
	}{
		"never configured":              {true, false, false, errNeverConfigured, "ready"},
		"no certificate":                {false, true, true, errNoCertificate, "ready"},
		"no certificate, on trial":      {true, true, true, errNoCertificate, "failed ready"},
		"unreadable, on trial":          {true, true, false, errors.New("why"), "failed"},
		"unreadable, was good earlier":  {false, true, false, errors.New("why"), ""},
		"cannot be encrypted":           {false, true, false, fmt.Errorf("file: %w: no TPM", errEncryption), "ready"},
		"cannot be encrypted, on trial": {true, true, false, fmt.Errorf("file: %w: no TPM", errEncryption), "failed ready"},
	} {
		o := testNode(t)
		write(t, filepath.Join(o.run, release.FactsFile), release.Facts{Slot: "root-a", Trial: test.trial}.String())
		var got []string
		for _, n := range o.waits(test.closed, test.found, test.why) {
			if n.Trial == release.TrialFailed && !n.Ready {
				got = append(got, "failed")
			} else if n.Ready && n.Trial == "" {
				got = append(got, "ready")
			}
		}
		if strings.Join(got, " ") != test.want {
			t.Errorf("%s: got %q, want %q", name, got, test.want)
		}
	}
}

// TestLogWithoutJournal: a disk that takes no file is no reason not to start.
func TestLogWithoutJournal(t *testing.T) {
	o := testNode(t)
	o.logs = filepath.Join(o.logs, "file")
	write(t, o.logs, "") // no folder, so no journal in it
	var out bytes.Buffer
	log, own := openLog(o, &out)
	defer own.Close()
	log.Info("still here")
	if !strings.Contains(out.String(), "not kept on the disk") || !strings.Contains(out.String(), "still here") {
		t.Errorf("got %q", out.String())
	}
}
