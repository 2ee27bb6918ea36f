package cli

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"oscine.dev/oscine/internal/api"
	"oscine.dev/oscine/internal/attest"
	"oscine.dev/oscine/internal/attest/attesttest"
	"oscine.dev/oscine/internal/node"
	"oscine.dev/oscine/internal/node/access"
	nodeidentity "oscine.dev/oscine/internal/node/identity"
	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/pki"
)

// attestedNode is a node of which nothing is there but its API, its identity and its
// TPM.
type attestedNode struct {
	api.Node
	t        *testing.T
	tpm      transport.TPM // nil for none
	identity *nodeidentity.Identity
	list     *access.List
	swap     func([]byte) []byte // changes the request on its way; nil for not
	endorsed transport.TPM       // another TPM that answers for its maker; nil for none

	dir, config string
}

func (n *attestedNode) Access() *access.List                { return n.list }
func (n *attestedNode) Identity() *nodeidentity.Identity    { return n.identity }
func (n *attestedNode) Inference() ([]string, http.Handler) { return nil, http.NotFoundHandler() }
func (n *attestedNode) Metrics() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "# metrics\n") })
}
func (n *attestedNode) Releases() http.Handler { return nil }
func (n *attestedNode) Info() node.Info        { return node.Info{Name: "edge1", Version: "1.0"} }
func (n *attestedNode) Attest(nonce []byte) (*attest.Evidence, error) {
	return attest.Quote(n.tpm, nonce)
}

func (n *attestedNode) Endorsements() ([][]byte, error) {
	if n.endorsed != nil {
		return attest.Endorsements(n.endorsed)
	}
	return attest.Endorsements(n.tpm)
}

func (n *attestedNode) Activate(c attest.Challenge) ([]byte, error) {
	if n.endorsed != nil {
		return attest.Activate(n.endorsed, c)
	}
	return attest.Activate(n.tpm, c)
}

func (n *attestedNode) RequestCertificate(nonce []byte) ([]byte, *attest.Evidence, error) {
	request, err := n.identity.Request()
	if err != nil || len(nonce) == 0 {
		return request, nil, err
	}
	if n.tpm == nil {
		return nil, nil, attest.ErrNoTPM
	}
	e, err := attest.QuoteRequest(n.tpm, nonce, request)
	if n.swap != nil {
		request = n.swap(request)
	}
	return request, e, err
}

// serveAttested starts a node whose own certificate is valid for a time.
func serveAttested(t *testing.T, tpm transport.TPM, lifetime time.Duration) *attestedNode {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := &attestedNode{t: t, tpm: tpm, dir: t.TempDir()}
	n.config = filepath.Join(n.dir, "config")
	if status, said := n.command("config", "generate", "edge1", "--output", n.dir, "--address", l.Addr().String()); status != 0 {
		t.Fatal(said)
	}
	key, err := pki.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	n.install(key, lifetime)
	if n.list, err = access.Open(filepath.Join(n.dir, "revoked.json")); err != nil {
		t.Fatal(err)
	}
	server := api.NewServer(n, slog.New(slog.DiscardHandler))
	ctx, end := context.WithCancel(context.WithoutCancel(t.Context()))
	served := make(chan error, 1)
	go func() { served <- server.Serve(ctx, l) }()
	t.Cleanup(func() {
		end()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return n
}

// install gives the node a certificate that is valid for a time, as config apply
// does.
func (n *attestedNode) install(key []byte, lifetime time.Duration) {
	n.t.Helper()
	authority, err := loadAuthority(n.dir)
	if err != nil {
		n.t.Fatal(err)
	}
	request, err := pki.NewRequest(key)
	if err != nil {
		n.t.Fatal(err)
	}
	maintenance, err := pki.NewMaintenance(key)
	if err != nil {
		n.t.Fatal(err)
	}
	proved, err := maintenance.TLS()
	if err != nil {
		n.t.Fatal(err)
	}
	certificate, err := pki.SignNode(authority, request, proved.Leaf, "edge1", []string{"127.0.0.1"}, lifetime)
	if err != nil {
		n.t.Fatal(err)
	}
	n.identity, err = nodeidentity.Open(filepath.Join(n.dir, "identity.json"), object.MachineAPI{CA: string(authority.Certificate), Certificate: string(certificate), Key: string(key)}, slog.New(slog.DiscardHandler))
	if err != nil {
		n.t.Fatal(err)
	}
}

func (n *attestedNode) command(args ...string) (status int, said string) {
	n.t.Helper()
	return n.commandUntil(n.t.Context(), args...)
}

func (n *attestedNode) commandUntil(ctx context.Context, args ...string) (status int, said string) {
	var text bytes.Buffer
	env := &Env{In: strings.NewReader(""), Out: &text, Err: &text, Kinds: object.Kinds()}
	status = env.Run(ctx, append([]string{"--config", n.config}, args...))
	return status, text.String()
}

func (n *attestedNode) says(pattern string, args ...string) {
	n.t.Helper()
	if status, said := n.command(args...); status != 0 || !regexp.MustCompile(pattern).MatchString(said) {
		n.t.Errorf("oscine %s: exit status %d, want %q in:\n%s", strings.Join(args, " "), status, pattern, said)
	}
}

func (n *attestedNode) fails(pattern string, args ...string) {
	n.t.Helper()
	before := n.identity.Leaf()
	if status, said := n.command(args...); status == 0 || !regexp.MustCompile(pattern).MatchString(said) {
		n.t.Errorf("oscine %s: exit status %d, want %q in:\n%s", strings.Join(args, " "), status, pattern, said)
	}
	if !n.identity.Leaf().Equal(before) {
		n.t.Errorf("oscine %s: the certificate was renewed", strings.Join(args, " "))
	}
}

// What a TPM's register 11 holds after "kernel" went in.
func kernelPCR(t *testing.T, tpm transport.TPM) string {
	t.Helper()
	return "11=" + extend(t, tpm, 11, "kernel")
}

// extend puts something into a register that is zero, and returns what it holds then.
func extend(t *testing.T, tpm transport.TPM, register uint32, what string) string {
	t.Helper()
	digest := sha256.Sum256([]byte(what))
	_, err := tpm2.PCRExtend{
		PCRHandle: tpm2.AuthHandle{Handle: tpm2.TPMHandle(register), Auth: tpm2.PasswordAuth(nil)},
		Digests:   tpm2.TPMLDigestValues{Digests: []tpm2.TPMTHA{{HashAlg: tpm2.TPMAlgSHA256, Digest: digest[:]}}},
	}.Execute(tpm)
	if err != nil {
		t.Fatal(err)
	}
	want := sha256.Sum256(append(make([]byte, 32), digest[:]...))
	return hex.EncodeToString(want[:])
}

// A node that runs what is expected gets another certificate, which it uses on the
// next connection while those that are open stay. One that does not gets none.
func TestAttestRenew(t *testing.T) {
	tpm := attesttest.Emulated(t)
	pcr := kernelPCR(t, tpm)
	n := serveAttested(t, tpm, time.Hour)
	first := n.identity.Leaf()
	open := n.connect()
	n.says(`(?s)11 +\w+ +as expected.*Certificate renewed until .*, serial [0-9a-f]+`, "attest", "edge1", "--pcr", pcr, "--renew", "--valid", "12h")
	renewed := n.identity.Leaf()
	if left := time.Until(renewed.NotAfter); renewed.Equal(first) || left > 12*time.Hour || left < 11*time.Hour {
		t.Errorf("the new certificate is valid for %s", left)
	}
	if renewed.VerifyHostname("127.0.0.1") != nil {
		t.Errorf("the new certificate is for %v", renewed.DNSNames)
	}
	open() // still answered

	n.fails(`PCR 11 is \w+, want abab.*its certificate was not renewed`, "attest", "edge1", "--pcr", "11="+strings.Repeat("ab", 32), "--renew")
	n.fails(`the TPM's key is \w+, want abab`, "attest", "edge1", "--pcr", pcr, "--key", strings.Repeat("ab", 32), "--renew")
	n.swap = func([]byte) []byte { // somebody in between asks for a key of their own
		key, err := pki.NewKey()
		if err != nil {
			t.Fatal(err)
		}
		request, err := pki.NewRequest(key)
		if err != nil {
			t.Fatal(err)
		}
		return request
	}
	n.fails(`proves nothing: it is of the nonce`, "attest", "edge1", "--pcr", pcr, "--renew")
	n.swap = nil

	if status, said := n.command("config", "credentials", "olga", "--role", "operator", "-o", filepath.Join(n.dir, "olga.config")); status != 0 {
		t.Fatal(said)
	}
	hers := &attestedNode{t: t, identity: n.identity, config: filepath.Join(n.dir, "olga.config")}
	hers.fails(`needs role admin, and "olga" has role operator`, "attest", "edge1", "--authority", n.dir, "--pcr", pcr, "--renew")
}

// Another system can extend PCR 11 by what a release is known to put into it, and has
// the same TPM. PCR 7 tells it: what the first attestation found counts, until another
// value is given, or another TPM taken.
func TestAttestKnowsPCR7(t *testing.T) {
	tpm := attesttest.Emulated(t)
	pcr := kernelPCR(t, tpm)
	n := serveAttested(t, tpm, time.Hour)
	zero := strings.Repeat("00", 32)
	if status, said := n.command("attest", "edge1", "--pcr", "11="+zero); status == 0 || strings.Contains(said, "PCR 7 "+zero) {
		t.Errorf("a node that runs something else: exit status %d:\n%s", status, said)
	}
	if _, said := n.command("attest", "edge1"); strings.Contains(said, "PCR 7 "+zero) {
		t.Errorf("a node of which nothing was compared:\n%s", said)
	}
	n.says(`PCR 7 `+zero+` is new, and known from now on`, "attest", "edge1", "--pcr", pcr)
	n.says(`(?s)7 +`+zero+` +as expected.*Certificate renewed`, "attest", "edge1", "--pcr", pcr, "--renew")
	n.says(`(?s)was not compared.*"trusted": false`, "attest", "edge1", "-o", "json")

	other := extend(t, tpm, 7, "Secure Boot is off")
	differs, next := `PCR 7 is `+other+`, want `+zero, `; .*take the new value with --pcr 7=`+other
	n.fails(differs+`: its certificate was not renewed`+next, "attest", "edge1", "--pcr", pcr, "--renew")
	n.fails(differs+`: its certificate was not renewed`+next, "attest", "edge1", "--pcr", pcr, "--renew", "--new-key")
	n.fails(differs+next, "attest", "edge1", "--pcr", pcr)
	n.fails(differs+next, "attest", "edge1")
	n.fails(`PCR 7 is `+other+`, want abab`, "attest", "edge1", "--pcr", pcr, "--pcr", "7="+strings.Repeat("ab", 32), "--renew")
	n.says(`(?s)PCR 7 `+other+` is new.*Certificate renewed`, "attest", "edge1", "--pcr", pcr, "--pcr", "7="+other, "--renew")
	n.says(`(?s)7 +`+other+` +as expected.*Certificate renewed`, "attest", "edge1", "--pcr", pcr, "--renew")

	n.tpm = attesttest.Emulated(t)
	kernelPCR(t, n.tpm)
	n.fails(`take the new key with --new-key`, "attest", "edge1", "--pcr", pcr, "--renew")
	n.says(`(?s)PCR 7 `+zero+` is new.*Certificate renewed`, "attest", "edge1", "--pcr", pcr, "--renew", "--new-key")
}

// connect opens a connection and returns a function that uses it again.
func (n *attestedNode) connect() (again func()) {
	n.t.Helper()
	env := &Env{ConfigPath: n.config, Kinds: object.Kinds()}
	c, err := env.Client()
	if err != nil {
		n.t.Fatal(err)
	}
	web, url := c.HTTP()
	var shown string
	get := func() {
		n.t.Helper()
		resp, err := web.Get(url + "/metrics")
		if err != nil {
			n.t.Fatal(err)
		}
		defer resp.Body.Close()
		serial := pki.Serial(resp.TLS.PeerCertificates[0])
		if resp.StatusCode != http.StatusOK || shown != "" && serial != shown {
			n.t.Errorf("the open connection: %s, certificate %s, want %s", resp.Status, serial, shown)
		}
		shown = serial
	}
	get()
	return get
}

// The holder of the authority renews a certificate that has expired, and other
// clients are told the next step. That needs the TPM's key to be known.
func TestAttestRenewExpired(t *testing.T) {
	tpm := attesttest.Emulated(t)
	pcr := kernelPCR(t, tpm)
	n := serveAttested(t, tpm, -time.Minute)
	const told = `node's certificate expired at .* renews it with oscine attest "edge1" --renew`
	n.fails(told, "info")
	n.fails(told, "attest", "edge1", "--pcr", pcr)
	n.fails(`does not know the key of its TPM: give its fingerprint with --key`, "attest", "edge1", "--pcr", pcr, "--renew")
	n.fails(`PCR 11 is`, "attest", "edge1", "--pcr", "11="+strings.Repeat("ab", 32), "--renew", "--new-key")
	n.says(`Certificate renewed until`, "attest", "edge1", "--pcr", pcr, "--renew")
	n.says(`Oscine +1.0`, "info")

	if err := os.RemoveAll(filepath.Join(n.dir, "ca.key")); err != nil {
		t.Fatal(err)
	}
	n.fails(`ca\.key`, "attest", "edge1", "--pcr", pcr, "--renew")
	n.says(`as expected`, "attest", "edge1", "--pcr", pcr)
}

// With --every it goes on after failures, until it is interrupted.
func TestAttestRenewEvery(t *testing.T) {
	tpm := attesttest.Emulated(t)
	pcr := kernelPCR(t, tpm)
	n := serveAttested(t, tpm, time.Hour)
	ctx, cancel := context.WithCancel(t.Context())
	first := n.identity.Leaf()
	go func() {
		for n.identity.Leaf().Equal(first) && ctx.Err() == nil {
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(100 * time.Millisecond)
		cancel()
	}()
	if status, said := n.commandUntil(ctx, "attest", "edge1", "--pcr", pcr, "--renew", "--every", "8h"); status != 0 || !strings.Contains(said, "edge1 runs 1.0 as expected: certificate renewed until ") {
		t.Errorf("exit status %d: %s", status, said)
	}
	ctx, cancel = context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if status, said := n.commandUntil(ctx, "attest", "edge1", "--pcr", "11="+strings.Repeat("ab", 32), "--renew", "--every", "8h"); status != 0 || !strings.Contains(said, "its certificate was not renewed; next try in 5m0s") {
		t.Errorf("exit status %d: %s", status, said)
	}
}

// A node without a TPM gets another certificate by the holder of the authority.
func TestConfigCertify(t *testing.T) {
	n := serveAttested(t, nil, time.Hour)
	n.fails(`this node has no TPM 2.0`, "attest", "edge1", "--pcr", "11="+strings.Repeat("ab", 32), "--renew")
	n.fails(`--days must be from 1 to`, "config", "certify", "--days", "0")
	n.says(`edge1 has a certificate until 20\d\d-.*, serial [0-9a-f]+; the one before was valid until`, "config", "certify", "--days", "90")
	if left := time.Until(n.identity.Leaf().NotAfter); left < 89*24*time.Hour || left > 90*24*time.Hour {
		t.Errorf("it is valid for %s", left)
	}
	expired := serveAttested(t, nil, -time.Minute)
	expired.fails(`expired at .* give --accept-expired`, "config", "certify")
	expired.says(`edge1 has a certificate until`, "config", "certify", "--accept-expired")
	expired.says(`Oscine +1.0`, "info")
}

// With --ek-ca the TPM has to be of a maker in the file, and the key that attests has
// to be of that TPM. Without, the maker is told once.
func TestAttestEndorsement(t *testing.T) {
	maker, other := attesttest.NewMaker(t), attesttest.NewMaker(t)
	file := func(text []byte) string {
		t.Helper()
		name := filepath.Join(t.TempDir(), "makers.pem")
		if err := os.WriteFile(name, text, 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	makers, others := file(maker.Authorities()), file(other.Authorities())
	tpm := attesttest.Emulated(t)
	pcr := kernelPCR(t, tpm)
	n := serveAttested(t, tpm, time.Hour)
	n.fails(`edge1: its TPM has no endorsement certificate`, "attest", "edge1", "--pcr", pcr, "--ek-ca", makers)
	maker.Endorse(tpm, tpm2.TPMAlgRSA, tpm2.TPMAlgECC)
	n.fails(`^oscine: [^\n]* of IBM by "CN=Test TPM EK CA"[^\n]*unknown authority[^\n]*: if you accept this maker, add [^\n]* to the file of --ek-ca\n$`, "attest", "edge1", "--pcr", pcr, "--ek-ca", others)
	n.fails(`no root certificate in PEM`, "attest", "edge1", "--pcr", pcr, "--ek-ca", file([]byte("hello")))
	n.fails(`no such file`, "attest", "edge1", "--pcr", pcr, "--ek-ca", "nowhere.pem")

	// A node whose key no TPM of the maker has borrows one that has another key.
	n.endorsed = attesttest.Emulated(t)
	maker.Endorse(n.endorsed, tpm2.TPMAlgRSA)
	n.fails(`are not of one TPM: .*another endorsement key or attestation key`, "attest", "edge1", "--pcr", pcr, "--ek-ca", makers)
	n.endorsed = nil

	n.says(`TPM made by +IBM swtpm id:20191023, by "CN=Test TPM EK CA": not checked`, "attest", "edge1", "--pcr", pcr)
	if _, said := n.command("attest", "edge1", "--pcr", pcr); strings.Contains(said, "TPM made by") {
		t.Errorf("told again:\n%s", said)
	}
	n.says(`(?s)TPM made by +IBM .*: checked.*Certificate renewed until`, "attest", "edge1", "--pcr", pcr, "--ek-ca", makers, "--renew")
	n.says(`"maker": "IBM",(?s:.*)"checked": true`, "attest", "edge1", "--pcr", pcr, "--ek-ca", makers, "-o", "json")
	unmade := serveAttested(t, attesttest.Emulated(t), time.Hour)
	unmade.says(`TPM made by +unknown: it has no endorsement certificate`, "attest", "edge1")
}
