package identity

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"

	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/pki"
)

type cluster struct {
	t         testing.TB
	authority pki.Pair
	path      string
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	authority, err := pki.NewAuthority("test")
	if err != nil {
		t.Fatal(err)
	}
	return &cluster{t, authority, filepath.Join(t.TempDir(), "identity.json")}
}

// machine is the identity in a new Machine of edge1.
func (c *cluster) machine() object.MachineAPI {
	c.t.Helper()
	own, err := pki.NewNode(c.authority, "edge1", []string{"192.0.2.7"})
	if err != nil {
		c.t.Fatal(err)
	}
	return object.MachineAPI{CA: string(c.authority.Certificate), Certificate: string(own.Certificate), Key: string(own.Key)}
}

func (c *cluster) open(api object.MachineAPI) *Identity {
	c.t.Helper()
	i, err := Open(c.path, api, slog.New(slog.DiscardHandler))
	if err != nil {
		c.t.Fatal(err)
	}
	return i
}

// renew has the authority renew i for a time.
func (c *cluster) renew(i *Identity, lifetime time.Duration) {
	c.t.Helper()
	request, err := i.Request()
	if err != nil {
		c.t.Fatal(err)
	}
	certificate, err := pki.RenewNode(c.authority, request, i.Leaf(), lifetime)
	if err != nil {
		c.t.Fatal(err)
	}
	if err := i.Install(certificate, "rita"); err != nil {
		c.t.Fatal(err)
	}
}

func shown(t *testing.T, i *Identity) *tls.Certificate {
	t.Helper()
	pair, err := i.Certificate(nil)
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

// A renewed certificate counts at once and after a restart, until the node gets
// another Machine.
func TestInstall(t *testing.T) {
	c := newCluster(t)
	machine := c.machine()
	i := c.open(machine)
	var noted string
	i.Noted = func(_ bool, reason, message string) { noted = reason + ": " + message }
	before := shown(t, i)
	c.renew(i, time.Hour)
	after := shown(t, i)
	if before == after || time.Until(after.Leaf.NotAfter) > time.Hour || after.Leaf.VerifyHostname("192.0.2.7") != nil {
		t.Errorf("got a certificate until %s for %v", after.Leaf.NotAfter, after.Leaf.DNSNames)
	}
	if !strings.Contains(noted, ReasonRenewed+`: "rita" renewed the node's certificate, until `) {
		t.Errorf("noted %q", noted)
	}
	again := c.open(machine)
	if !again.Leaf().Equal(after.Leaf) {
		t.Error("after a restart another certificate counts")
	}
	c.renew(again, time.Hour) // the second renewal still belongs to the Machine
	if got := c.open(machine).Leaf(); !got.Equal(again.Leaf()) {
		t.Error("after a second renewal and a restart another certificate counts")
	}
	if info, err := os.Stat(c.path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file with the key: %v, %v", info.Mode(), err)
	}
	other := c.machine()
	if got := pki.Fingerprint(c.open(other).Leaf().Raw); got != c.open(other).machine {
		t.Error("the renewed certificate of another Machine counts")
	}
	if err := os.WriteFile(c.path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := pki.Fingerprint(c.open(machine).Leaf().Raw); got != i.machine {
		t.Error("with a broken file the Machine's certificate does not count")
	}
}

func TestInstallRefuses(t *testing.T) {
	c := newCluster(t)
	i := c.open(c.machine())
	before := i.Leaf()
	if err := i.Install([]byte(c.machine().Certificate), "rita"); !errors.Is(err, ErrNoRequest) {
		t.Errorf("nothing was asked for: got %v", err)
	}
	first, err := i.Request()
	if err != nil {
		t.Fatal(err)
	}
	request, err := i.Request()
	if err != nil {
		t.Fatal(err)
	}
	signed := func(authority pki.Pair, request []byte, name string) []byte {
		t.Helper()
		own, err := pki.NewNode(authority, name, nil)
		if err != nil {
			t.Fatal(err)
		}
		pair, err := own.TLS()
		if err != nil {
			t.Fatal(err)
		}
		certificate, err := pki.RenewNode(authority, request, pair.Leaf, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		return certificate
	}
	stranger := newCluster(t)
	good := signed(c.authority, request, "edge1")
	for name, test := range map[string]struct {
		certificate []byte
		want        error
		says        string
	}{
		"of an earlier request":    {signed(c.authority, first, "edge1"), ErrNoRequest, "renew it again"},
		"by another authority":     {signed(stranger.authority, request, "edge1"), errdefs.ErrInvalidArgument, "unknown authority"},
		"of another node":          {signed(c.authority, request, "edge2"), errdefs.ErrInvalidArgument, `named "edge2"`},
		"two":                      {append(good, good...), errdefs.ErrInvalidArgument, "not one certificate"},
		"none":                     {nil, ErrNoRequest, ""},
		"no certificate":           {[]byte("hello"), ErrNoRequest, ""},
		"of the Machine's own key": {[]byte(c.machine().Certificate), ErrNoRequest, ""},
	} {
		if err := i.Install(test.certificate, "rita"); !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: got %v, want %q", name, err, test.says)
		}
	}
	if !i.Leaf().Equal(before) {
		t.Error("a refused certificate counts")
	}
	if err := i.Install(good, "rita"); err != nil {
		t.Errorf("after refusals: %v", err)
	}
}

// Time in a bubble starts in the year 2000.
func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		i := c.open(c.machine())
		var noted []string
		i.Noted = func(warning bool, reason, message string) {
			if warning && strings.HasSuffix(message, HowToRenew) {
				noted = append(noted, reason)
			}
		}
		c.renew(i, 24*time.Hour)
		ctx, end := context.WithCancel(t.Context())
		defer end()
		go i.Watch(ctx)
		at := func(after time.Duration, want ...string) {
			t.Helper()
			time.Sleep(after)
			synctest.Wait()
			if strings.Join(noted, " ") != strings.Join(want, " ") {
				t.Errorf("at %s: noted %v, want %v", time.Now(), noted, want)
			}
		}
		at(15*time.Hour + 59*time.Minute)
		at(2*time.Minute, ReasonExpiring)
		at(8*time.Hour, ReasonExpiring, ReasonExpired)
		at(7*24*time.Hour, ReasonExpiring, ReasonExpired)
		c.renew(i, 24*time.Hour) // after its end too
		if reason, _ := i.State(time.Now()); reason != "" {
			t.Errorf("renewed: got %s", reason)
		}
		at(17*time.Hour, ReasonExpiring, ReasonExpired, ReasonExpiring)
	})
}

func FuzzOpen(f *testing.F) {
	authority, err := pki.NewAuthority("test")
	if err != nil {
		f.Fatal(err)
	}
	c := &cluster{f, authority, filepath.Join(f.TempDir(), "identity.json")}
	machine := c.machine()
	i := c.open(machine)
	c.renew(i, time.Hour)
	good, err := os.ReadFile(c.path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Fuzz(func(t *testing.T, raw []byte) {
		if err := os.WriteFile(c.path, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(c.path, machine, slog.New(slog.DiscardHandler)); err != nil {
			t.Error(err)
		}
	})
}
