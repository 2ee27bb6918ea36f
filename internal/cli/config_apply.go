package cli

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"oscine.dev/oscine/internal/api/oscinepb"
	"oscine.dev/oscine/internal/client"
	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/pki"
)

// applyOptions are the flags of config apply.
type applyOptions struct {
	file            string
	address         string
	authority       string
	fingerprint     string
	skipFingerprint bool
	code            string
	valid           time.Duration // of the node's certificate
}

func newConfigApplyCommand(env *Env) *cobra.Command {
	var o applyOptions
	c := &cobra.Command{
		Use:   "apply -f MACHINE.yaml --address HOST[:PORT]",
		Short: "Give a node in maintenance mode its configuration or its certificate",
		Long: `Send a Machine manifest to a node that has none, or that waits for its
certificate. The node makes its key itself and asks for a certificate, which the
authority in the manifest's folder signs: no key is sent, and one in the manifest
is left out.

A node that booted with this manifest shows that it knows the manifest's join
token. Any other node cannot prove its identity. Compare its fingerprint with the one on
its console: this command asks for it, unless --fingerprint gives it.

A node that was configured before, and cannot read its configuration, takes a
new one only from its owner: with an admin's context of its authority, or with
the code on its console (--console-code).`,
		Args: exactArgs(0, ""),
		RunE: func(c *cobra.Command, _ []string) error { return applyConfig(c.Context(), env, o) },
	}
	c.Flags().StringVarP(&o.file, "file", "f", "", "Machine manifest, - for standard input")
	c.Flags().StringVar(&o.address, "address", "", "the node's address")
	c.Flags().StringVar(&o.authority, "authority", "", "folder with ca.crt and ca.key (default the manifest's)")
	c.Flags().StringVar(&o.fingerprint, "fingerprint", "", "SHA-256 of the node's certificate, from its console")
	c.Flags().BoolVar(&o.skipFingerprint, "insecure-skip-fingerprint", false, "take whichever machine answers for the node")
	c.Flags().DurationVar(&o.valid, "valid", pki.NodeLifetime, "how long the node's certificate is valid, such as 24h; a short one is renewed by oscine attest --renew")
	c.Flags().Lookup("valid").DefValue = "10 years"
	c.Flags().StringVar(&o.code, "console-code", "", "code on the console of a node that was configured before")
	c.MarkFlagsMutuallyExclusive("fingerprint", "insecure-skip-fingerprint")
	_ = c.MarkFlagRequired("file")
	_ = c.MarkFlagRequired("address")
	return c
}

func applyConfig(ctx context.Context, env *Env, o applyOptions) error {
	if o.valid < minValid || o.valid > pki.NodeLifetime {
		return usageError{fmt.Errorf("--valid %s: must be from %s to %d years, such as 24h", o.valid, minValid, pki.NodeLifetime/(365*day))}
	}
	text, err := readFileOrStdin(env, o.file)
	if err != nil {
		return err
	}
	if o.authority == "" {
		o.authority = filepath.Dir(o.file)
	}
	authority, err := requireAuthority(o.authority)
	if err != nil {
		return err
	}
	host, port, err := splitAddress(o.address)
	if err != nil {
		return err
	}
	draft, err := draftMachine(text, authority, host)
	if err != nil {
		return fmt.Errorf("%s:\n%w", o.file, err)
	}
	node, err := client.DialMaintenance(ctx, net.JoinHostPort(host, port), env.owner(draft.name))
	if err != nil {
		return err
	}
	asks, err := node.Describe(ctx, connect.NewRequest(&oscinepb.DescribeRequest{}))
	if err != nil {
		return err
	}
	if pki.ProvesJoin(draft.token, node.Certificate.Raw, asks.Msg.JoinProof) && o.fingerprint == "" {
		fmt.Fprintf(env.Err, "the node knows the join token of %s\n", o.file)
	} else if err := checkFingerprint(env, o, node); err != nil {
		return err
	}
	if o.valid < pki.NodeLifetime && !asks.Msg.Tpm {
		return fmt.Errorf("--valid %s: the node has no TPM 2.0, and without it oscine attest --renew cannot renew a short certificate: leave --valid out", o.valid)
	}
	certificate, err := pki.SignNode(authority, []byte(asks.Msg.CertificateRequest), node.Certificate, draft.name, draft.hosts, o.valid)
	if err != nil {
		return err
	}
	manifest, err := withIdentity(text, authority, certificate)
	if err != nil {
		return err
	}
	if _, err := node.Configure(ctx, connect.NewRequest(&oscinepb.ConfigureRequest{Manifest: string(manifest), ConsoleCode: o.code})); err != nil {
		return err
	}
	fmt.Fprintln(env.Out, "configured; the node comes up with it now")
	if o.valid < pki.NodeLifetime {
		fmt.Fprintf(env.Out, "its certificate expires at %s: renew it before with oscine attest %s --renew (docs/trust.md)\n", time.Now().Add(o.valid).Format(time.RFC3339), draft.name)
	}
	return nil
}

// owner is the context of a node's owner, if this person is: the one of the
// node's name, else the chosen one, else nil.
func (e *Env) owner(name string) *client.Context {
	path, err := e.configPath()
	if err != nil {
		return nil
	}
	config, err := client.Load(path)
	if err != nil {
		return nil
	}
	if ctx, ok := config.Contexts[name]; ok && e.Context == "" {
		return ctx
	}
	_, ctx, err := config.Context(e.Context)
	if err != nil {
		return nil
	}
	return ctx
}

// checkFingerprint makes sure that the machine that answers is the one meant.
func checkFingerprint(env *Env, o applyOptions, node *client.Maintenance) error {
	switch {
	case o.skipFingerprint:
		fmt.Fprintf(env.Err, "the node's fingerprint %s was not compared\n", node.Fingerprint())
		return nil
	case o.fingerprint != "":
		if !node.IsFingerprint(o.fingerprint) {
			return fmt.Errorf("the node's fingerprint is %s, not %s: this is another machine, or someone is in between", node.Fingerprint(), o.fingerprint)
		}
		return nil
	case o.file == "-" || !isTerminal(env.In):
		return usageError{fmt.Errorf("the machine at %s shows the fingerprint %s: compare it with the node's console and give it by --fingerprint, or trust the network with --insecure-skip-fingerprint",
			o.address, node.Fingerprint())}
	}
	return confirmFingerprint(env, o.address, node.Fingerprint())
}

// confirmFingerprint asks the person.
func confirmFingerprint(env *Env, address, fingerprint string) error {
	answer, err := askLine(env, fmt.Sprintf("The machine at %s shows the fingerprint\n  %s\nDoes the node's console show the same? [y/N] ", address, fingerprint))
	if err != nil {
		return err
	}
	if answer = strings.ToLower(answer); answer != "y" && answer != "yes" {
		return errors.New("nothing was sent: the fingerprint was not confirmed")
	}
	return nil
}

// machineDraft is what a manifest says about the node's certificate.
type machineDraft struct {
	name  string
	hosts []string // names and addresses under which clients reach the node
	token string   // by which it is recognised; empty for none
}

// draftMachine checks a manifest before anybody is asked for anything.
func draftMachine(text []byte, authority pki.Pair, host string) (machineDraft, error) {
	d := machineDraft{hosts: []string{host, "127.0.0.1", "localhost"}}
	throwaway, err := pki.NewNode(authority, "draft", nil)
	if err != nil {
		return d, err
	}
	complete, err := withIdentity(text, authority, throwaway.Certificate)
	if err != nil {
		return d, err
	}
	machine, err := object.ParseMachine(bytes.NewReader(complete))
	if err != nil {
		return d, err
	}
	before := identityIn(text)
	d.name, d.token = machine.Metadata.Name, before.JoinToken
	d.hosts = append(d.hosts, machine.Spec.API.Hosts...)
	// What config generate --host asked for stands in the certificate it made.
	if block, _ := pem.Decode([]byte(before.Certificate)); block != nil {
		if leaf, err := x509.ParseCertificate(block.Bytes); err == nil {
			d.hosts = append(d.hosts, leaf.DNSNames...)
			for _, ip := range leaf.IPAddresses {
				d.hosts = append(d.hosts, ip.String())
			}
		}
	}
	return d, nil
}

// identity is the part of spec.api that withIdentity replaces.
type identity struct {
	Certificate string `yaml:"certificate"`
	JoinToken   string `yaml:"joinToken"`
}

// identityIn is the identity as it stands in a manifest; empty where it cannot be
// read.
func identityIn(text []byte) identity {
	var m struct {
		Spec struct{ API identity }
	}
	if yaml.Unmarshal(text, &m) != nil {
		return identity{}
	}
	return m.Spec.API
}

// withIdentity returns a Machine manifest with the node's certificate and
// without a key. An authority that it names must be the one that signs.
func withIdentity(text []byte, authority pki.Pair, certificate []byte) ([]byte, error) {
	var document yaml.Node
	documents := yaml.NewDecoder(bytes.NewReader(text))
	if err := documents.Decode(&document); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if err := documents.Decode(&yaml.Node{}); !errors.Is(err, io.EOF) {
		return nil, errors.Join(errors.New("must hold one Machine and nothing else"), err)
	}
	if document.Kind != yaml.DocumentNode || len(document.Content) != 1 || document.Content[0].Kind != yaml.MappingNode {
		return nil, errors.New("must hold one Machine and nothing else")
	}
	api, err := child(document.Content[0], "spec", "api")
	if err != nil {
		return nil, err
	}
	if ca := value(api, "ca"); ca != nil && strings.TrimSpace(ca.Value) != strings.TrimSpace(string(authority.Certificate)) {
		return nil, errors.New("spec.api.ca: is not the authority that is to sign the node's certificate: give the folder of that one with --authority DIR")
	}
	set(api, "ca", string(authority.Certificate))
	set(api, "certificate", string(certificate))
	set(api, "key", "")
	set(api, "joinToken", "") // it has served
	return yaml.Marshal(&document)
}

// withLocalIdentity gives a manifest without a certificate a key and one, from
// the authority in dir, for a machine of this computer.
func withLocalIdentity(text []byte, dir string) ([]byte, error) {
	machine, err := object.ParseMachine(bytes.NewReader(text))
	if err != nil || machine.Spec.API.Certificate != "" {
		return text, err
	}
	authority, err := loadAuthority(dir)
	if err != nil {
		return nil, fmt.Errorf("spec.api.certificate: the manifest has none, and nobody can sign one: %w", err)
	}
	node, err := pki.NewNode(authority, machine.Metadata.Name, machine.Spec.API.Hosts)
	if err != nil {
		return nil, err
	}
	complete, err := withIdentity(text, authority, node.Certificate)
	if err != nil {
		return nil, err
	}
	var document yaml.Node
	if err := yaml.Unmarshal(complete, &document); err != nil {
		return nil, err
	}
	api, err := child(document.Content[0], "spec", "api")
	if err != nil {
		return nil, err
	}
	set(api, "key", string(node.Key))
	return yaml.Marshal(&document)
}

// child returns the mapping at the end of the names, and makes what is absent.
func child(m *yaml.Node, names ...string) (*yaml.Node, error) {
	for _, name := range names {
		next := value(m, name)
		if next == nil {
			next = &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
			m.Content = append(m.Content, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: name}, next)
		}
		if next.Kind != yaml.MappingNode {
			return nil, fmt.Errorf("%s: must be a mapping", name)
		}
		m = next
	}
	return m, nil
}

// value returns the value of a key in a mapping, nil where it is absent.
func value(m *yaml.Node, key string) *yaml.Node {
	for i := 0; i+1 < len(m.Content); i += 2 {
		if m.Content[i].Value == key {
			return m.Content[i+1]
		}
	}
	return nil
}

// set gives a key of a mapping a value; an empty one removes it.
func set(m *yaml.Node, key, text string) {
	for i := 0; i+1 < len(m.Content); i += 2 {
		if m.Content[i].Value != key {
			continue
		}
		m.Content = append(m.Content[:i:i], m.Content[i+2:]...)
		break
	}
	if text != "" {
		m.Content = append(m.Content, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: key},
			&yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Style: yaml.LiteralStyle, Value: text})
	}
}
