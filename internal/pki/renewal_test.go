package pki

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"testing"
	"time"
)

func newTLS(t *testing.T, pair Pair, err error) tls.Certificate {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	signed, err := pair.TLS()
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

func TestRenew(t *testing.T) {
	authority, err := NewAuthority("test")
	if err != nil {
		t.Fatal(err)
	}
	pool, err := Pool(authority.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := NewClient(authority, "rita", Operator, time.Hour)
	rita := newTLS(t, pair, err)
	key, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	// The request says that it is for an admin, which does not count.
	renewal := renewalFor(t, rita, key, "boss", Admin)
	certificate, err := Renew(authority, renewal, 24*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	renewed := leaf(t, Pair{certificate, key})
	if renewed.Subject.CommonName != "rita" || RoleOf(renewed) != Operator || Lifetime(renewed) != 24*time.Hour || Serial(renewed) == Serial(rita.Leaf) {
		t.Errorf("got %s for %v, serial %s", renewed.Subject, Lifetime(renewed), Serial(renewed))
	}
	if err := renewal.CheckAnswer(pool, certificate, time.Now()); err != nil {
		t.Error(err)
	}

	other, err := NewAuthority("other")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Renew(other, renewal, time.Hour); !errors.Is(err, ErrSignature) {
		t.Errorf("signed by another authority: got %v", err)
	}
	otherKey, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	// A node, or someone on it, hands over other certificates than were asked for.
	template := func(name string, role Role, signer Pair, public []byte) []byte {
		t.Helper()
		k, err := parseKey(public)
		if err != nil {
			t.Fatal(err)
		}
		text, err := sign(&signer, nil, clientTemplate(name, role), k.Public(), time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	for name, answer := range map[string][]byte{
		"another name":      template("boss", Operator, authority, key),
		"another role":      template("rita", Admin, authority, key),
		"another authority": template("rita", Operator, other, key),
		"another key":       template("rita", Operator, authority, otherKey),
		"two":               append(template("rita", Operator, authority, key), certificate...),
		"nothing":           nil,
		"no PEM":            []byte("x"),
	} {
		if err := renewal.CheckAnswer(pool, answer, time.Now()); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func TestRefusedRenewals(t *testing.T) {
	authority, err := NewAuthority("test")
	if err != nil {
		t.Fatal(err)
	}
	pool, err := Pool(authority.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	client := func(name string, lifetime time.Duration) (Pair, tls.Certificate) {
		pair, err := NewClient(authority, name, Reader, lifetime)
		return pair, newTLS(t, pair, err)
	}
	ritas, rita := client("rita", time.Hour)
	_, mallory := client("mallory", time.Hour)
	_, expired := client("rita", -time.Minute)
	nodes, err := NewNode(authority, "edge1", nil)
	node := newTLS(t, nodes, err)
	key, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	ask := func(client tls.Certificate, key []byte) Renewal {
		t.Helper()
		r, err := NewRenewal(client, key)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	good := ask(rita, key)
	if _, err := good.Check(pool, time.Now()); err != nil {
		t.Fatal(err)
	}
	forged := ask(mallory, key)
	forged.Signature.Certificate = rita.Certificate[0] // whose key mallory lacks
	swapped := good
	swapped.Request = ask(rita, ritas.Key).Request // not what rita signed
	elsewhere := good
	var errSign error
	if elsewhere.Signature, errSign = Sign(rita, good.Request); errSign != nil { // of another statement
		t.Fatal(errSign)
	}
	broken := ask(rita, key)
	block, _ := pem.Decode(broken.Request)
	block.Bytes[len(block.Bytes)-1] ^= 1
	broken.Request = pem.EncodeToMemory(block)
	if broken.Signature, err = Sign(rita, append([]byte(renewalPurpose), broken.Request...)); err != nil {
		t.Fatal(err)
	}
	large := good
	large.Request = make([]byte, maxRequest+1)
	for name, r := range map[string]Renewal{
		"forged": forged, "another request": swapped, "another statement": elsewhere, "not signed by the new key": broken, "large": large,
		"expired": ask(expired, key), "a node's": ask(node, key), "the same key": ask(rita, ritas.Key), "empty": {},
	} {
		if _, err := r.Check(pool, time.Now()); err == nil {
			t.Errorf("%s: accepted", name)
		}
		if _, err := Renew(authority, r, time.Hour); err == nil {
			t.Errorf("%s: signed", name)
		}
	}
	if _, err := good.Check(nil, time.Now()); err == nil {
		t.Error("accepted without an authority")
	}
}

// renewalFor is a renewal whose request asks for a name and role.
func renewalFor(t *testing.T, client tls.Certificate, key []byte, name string, role Role) Renewal {
	t.Helper()
	signer, err := parseKey(key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: name, Organization: []string{role.organization()}},
	}, signer.(*ecdsa.PrivateKey))
	if err != nil {
		t.Fatal(err)
	}
	request := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
	signature, err := Sign(client, append([]byte(renewalPurpose), request...))
	if err != nil {
		t.Fatal(err)
	}
	return Renewal{request, signature}
}
