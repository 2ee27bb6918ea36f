package pki

import (
	"crypto/x509"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func leaf(t *testing.T, p Pair) *x509.Certificate {
	t.Helper()
	pair, err := p.TLS()
	if err != nil {
		t.Fatal(err)
	}
	return pair.Leaf
}

func TestCertificatesServeOnePurpose(t *testing.T) {
	authority, err := NewAuthority("test")
	if err != nil {
		t.Fatal(err)
	}
	node, err := NewNode(authority, "edge1", []string{"192.0.2.7", "edge1.example", "edge1"})
	if err != nil {
		t.Fatal(err)
	}
	client, err := NewClient(authority, "rita", Operator, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	pool, err := Pool(authority.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name  string
		pair  Pair
		usage x509.ExtKeyUsage
		valid bool
	}{
		{"a node serves", node, x509.ExtKeyUsageServerAuth, true},
		{"a node is no client", node, x509.ExtKeyUsageClientAuth, false},
		{"a client asks", client, x509.ExtKeyUsageClientAuth, true},
		{"a client is no node", client, x509.ExtKeyUsageServerAuth, false},
	} {
		_, err := leaf(t, tc.pair).Verify(x509.VerifyOptions{Roots: pool, KeyUsages: []x509.ExtKeyUsage{tc.usage}})
		if (err == nil) != tc.valid {
			t.Errorf("%s: got %v", tc.name, err)
		}
	}
	for _, host := range []string{"edge1", "edge1.example", "192.0.2.7"} {
		if err := leaf(t, node).VerifyHostname(host); err != nil {
			t.Error(err)
		}
	}
	if got := RoleOf(leaf(t, client)); got != Operator {
		t.Errorf("role of the client: got %v, want operator", got)
	}
	if got := RoleOf(leaf(t, node)); got != 0 {
		t.Errorf("role of the node: got %v, want none", got)
	}
}

func TestOnlyAnAuthoritySigns(t *testing.T) {
	authority, err := NewAuthority("test")
	if err != nil {
		t.Fatal(err)
	}
	client, err := NewClient(authority, "rita", Admin, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewClient(client, "mallory", Admin, time.Hour); err == nil || !strings.Contains(err.Error(), "no authority") {
		t.Errorf("a client signed another: %v", err)
	}
}

func TestParseRole(t *testing.T) {
	for _, role := range []Role{Reader, Operator, Admin} {
		if got, err := ParseRole(role.String()); err != nil || got != role {
			t.Errorf("%s: got %v, %v", role, got, err)
		}
	}
	if _, err := ParseRole("root"); err == nil {
		t.Error("root is no role, but was accepted")
	}
}

func TestSignNode(t *testing.T) {
	authority, err := NewAuthority("test")
	if err != nil {
		t.Fatal(err)
	}
	key, request, maintenance := newRequest(t)
	certificate, err := SignNode(authority, request, leaf(t, maintenance), "edge1", []string{"192.0.2.7", "edge1"}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	node := leaf(t, Pair{certificate, key})
	pool, err := Pool(authority.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"edge1", "192.0.2.7"} {
		if _, err := node.Verify(x509.VerifyOptions{Roots: pool, DNSName: host}); err != nil {
			t.Error(err)
		}
	}
	_, other, _ := newRequest(t)
	for name, request := range map[string][]byte{
		"a key that the node did not prove": other, "none": nil, "a certificate": maintenance.Certificate, "cut off": request[:len(request)/2],
	} {
		if _, err := SignNode(authority, request, leaf(t, maintenance), "edge1", nil, time.Hour); err == nil {
			t.Errorf("%s was signed", name)
		}
	}
}

// A node's certificate is renewed after its end too, with the same names and for
// another key.
func TestRenewNode(t *testing.T) {
	authority, err := NewAuthority("test")
	if err != nil {
		t.Fatal(err)
	}
	other, err := NewAuthority("other")
	if err != nil {
		t.Fatal(err)
	}
	ownKey, ownRequest, maintenance := newRequest(t)
	signed, err := SignNode(authority, ownRequest, leaf(t, maintenance), "edge1", []string{"192.0.2.7", "edge1.example"}, -time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	before := leaf(t, Pair{signed, ownKey})
	key, request, _ := newRequest(t)
	renewed, err := RenewNode(authority, request, before, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	pool, err := Pool(authority.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := CheckNode(pool, before, renewed, key)
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"edge1", "edge1.example", "192.0.2.7"} {
		if err := errors.Join(VerifyNode(pool, pair.Leaf, time.Now()), pair.Leaf.VerifyHostname(host)); err != nil {
			t.Error(err)
		}
	}
	if left := time.Until(pair.Leaf.NotAfter); left > time.Hour || left < time.Hour-time.Minute {
		t.Errorf("it is valid for another %s", left)
	}
	client, err := NewClient(authority, "edge1", Reader, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := NewNode(other, "edge1", nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		request []byte
		before  *x509.Certificate
	}{
		"the same key": {ownRequest, before}, "a client": {request, leaf(t, client)}, "another authority's": {request, leaf(t, stranger)},
		"no request": {nil, before}, "a maintenance certificate": {request, leaf(t, maintenance)},
	} {
		if _, err := RenewNode(authority, test.request, test.before, time.Hour); err == nil {
			t.Errorf("%s was renewed", name)
		}
	}
}

func newRequest(t testing.TB) (key, request []byte, maintenance Pair) {
	t.Helper()
	key, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	if request, err = NewRequest(key); err != nil {
		t.Fatal(err)
	}
	if maintenance, err = NewMaintenance(key); err != nil {
		t.Fatal(err)
	}
	return key, request, maintenance
}

func FuzzParseRequest(f *testing.F) {
	_, request, _ := newRequest(f)
	f.Add(request)
	f.Fuzz(func(t *testing.T, request []byte) {
		if key, err := parseRequest(request); (key == nil) == (err == nil) {
			t.Errorf("got %v, %v", key, err)
		}
	})
}

// Time in a bubble starts in the year 2000.
func TestRenewFrom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		authority, err := NewAuthority("test")
		if err != nil {
			t.Fatal(err)
		}
		for lifetime, left := range map[time.Duration]time.Duration{
			ClientLifetime: 30 * 24 * time.Hour, 30 * 24 * time.Hour: 10 * 24 * time.Hour, 24 * time.Hour: 8 * time.Hour,
		} {
			pair, err := NewClient(authority, "rita", Reader, lifetime)
			if err != nil {
				t.Fatal(err)
			}
			cert := leaf(t, pair)
			if got := Lifetime(cert); got != lifetime {
				t.Errorf("lifetime: got %v, want %v", got, lifetime)
			}
			if got := cert.NotAfter.Sub(RenewFrom(cert)); got != left {
				t.Errorf("of %v the last %v are for renewal, want %v", lifetime, got, left)
			}
		}
		pair, err := NewClient(authority, "rita", Reader, 2*AuthorityLifetime)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := leaf(t, pair).NotAfter, leaf(t, authority).NotAfter; !got.Equal(want) {
			t.Errorf("a certificate outlives its authority: got %v, want %v", got, want)
		}
	})
}

func TestVerify(t *testing.T) {
	authority, err := NewAuthority("test")
	if err != nil {
		t.Fatal(err)
	}
	other, err := NewAuthority("other")
	if err != nil {
		t.Fatal(err)
	}
	sign := func(p Pair, err error) *x509.Certificate {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return leaf(t, p)
	}
	pool, err := Pool(authority.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	rita, edge1 := sign(NewClient(authority, "rita", Admin, time.Hour)), sign(NewNode(authority, "edge1", nil))
	for _, of := range []struct {
		verify                   func(*x509.CertPool, *x509.Certificate, time.Time) error
		cert, anothers, otherUse *x509.Certificate
	}{
		{VerifyClient, rita, sign(NewClient(other, "rita", Admin, time.Hour)), edge1},
		{VerifyNode, edge1, sign(NewNode(other, "edge1", nil)), rita},
	} {
		for _, tc := range []struct {
			name string
			pool *x509.CertPool
			cert *x509.Certificate
			now  time.Time
			good bool
		}{
			{"now", pool, of.cert, time.Now(), true},
			{"by a clock at 1970", pool, of.cert, time.Unix(0, 0), true},
			{"expired", pool, of.cert, of.cert.NotAfter.Add(time.Hour), false},
			{"no authority", nil, of.cert, time.Now(), false},
			{"another authority's", pool, of.anothers, time.Now(), false},
			{"for another use", pool, of.otherUse, time.Now(), false},
		} {
			if err := of.verify(tc.pool, tc.cert, tc.now); (err == nil) != tc.good {
				t.Errorf("%s, %s: got %v", of.cert.Subject, tc.name, err)
			}
		}
	}
}
