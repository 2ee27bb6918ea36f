package pki

import (
	"crypto/x509"
	"errors"
	"strings"
	"testing"
	"time"
)

func TestSignature(t *testing.T) {
	authority, err := NewAuthority("test")
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := NewAuthority("test")
	if err != nil {
		t.Fatal(err)
	}
	pool, err := Pool(authority.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	sign := func(by Pair, role Role, lifetime time.Duration) Signature {
		t.Helper()
		pair, err := NewClient(by, "rita", role, lifetime)
		if err != nil {
			t.Fatal(err)
		}
		client, err := pair.TLS()
		if err != nil {
			t.Fatal(err)
		}
		s, err := Sign(client, []byte("this"))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	good := sign(authority, Admin, time.Hour)
	for _, c := range []struct {
		name      string
		signature Signature
		pool      *x509.CertPool
		statement string
		want      string
	}{
		{"an admin", good, pool, "this", ""},
		{"an admin whose certificate has expired", sign(authority, Admin, -time.Minute), pool, "this", ""},
		{"another statement", good, pool, "that", "for something else"},
		{"an operator", sign(authority, Operator, time.Hour), pool, "this", "is no admin"},
		{"an admin of another cluster", sign(stranger, Admin, time.Hour), pool, "this", "stranger"},
		{"nobody", Signature{}, pool, "this", "no signature"},
		{"no authority", good, nil, "this", "no authority"},
		{"a node", Signature{Certificate: nodeCertificate(t, authority), Value: good.Value}, pool, "this", "stranger"},
	} {
		err := c.signature.Check(c.pool, Admin, []byte(c.statement))
		if c.want == "" && err != nil || c.want != "" && (!errors.Is(err, ErrSignature) || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
	}
}

func nodeCertificate(t *testing.T, authority Pair) []byte {
	t.Helper()
	node, err := NewNode(authority, "edge1", nil)
	if err != nil {
		t.Fatal(err)
	}
	return leaf(t, node).Raw
}

func FuzzSignature(f *testing.F) {
	authority, err := NewAuthority("test")
	if err != nil {
		f.Fatal(err)
	}
	pool, err := Pool(authority.Certificate)
	if err != nil {
		f.Fatal(err)
	}
	pair, err := NewClient(authority, "rita", Admin, time.Hour)
	if err != nil {
		f.Fatal(err)
	}
	client, err := pair.TLS()
	if err != nil {
		f.Fatal(err)
	}
	good, err := Sign(client, []byte("this"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good.Certificate, good.Value)
	f.Add([]byte("0"), []byte{})
	f.Fuzz(func(t *testing.T, certificate, value []byte) {
		s := Signature{certificate, value}
		if s.Check(pool, Admin, []byte("that")) == nil {
			t.Error("what nobody signed was taken for signed")
		}
	})
}
