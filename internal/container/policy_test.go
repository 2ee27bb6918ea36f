package container

import (
	"bytes"
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

// TestImportIsBoundByPolicy: an archive can call its image what it likes, so
// the name decides as for a pull, and nothing of a refused one stays.
func TestImportIsBoundByPolicy(t *testing.T) {
	config := testConfig(t)
	config.Allow = []string{"ghcr.io/acme"}
	r := openRuntime(t, config)
	refused, taken := probeImage(t), probeImage(t)
	taken.name = "ghcr.io/acme/probe:1"
	if _, err := r.Import(t.Context(), bytes.NewReader(archiveOf(t, refused))); !errors.Is(err, ErrDenied) {
		t.Errorf("import of %s: got %v, want %v", refused.name, err, ErrDenied)
	}
	if left := diskFiles(t, r); len(left) > 0 {
		t.Errorf("a refused image leaves %q", left)
	}
	if _, err := r.Import(t.Context(), bytes.NewReader(archiveOf(t, taken))); err != nil {
		t.Errorf("import of %s: %v", taken.name, err)
	}
}

func TestCapabilitiesThatReachTheHost(t *testing.T) {
	for _, c := range []struct {
		name    string
		uidBase uint32
		refused bool
	}{
		{"DAC_READ_SEARCH", 0, true}, {"SYS_ADMIN", 0, true}, {"NET_BIND_SERVICE", 0, false},
		{"DAC_READ_SEARCH", 100000, false}, {"SYS_ADMIN", 100000, false},
	} {
		p := plan{spec: Spec{ID: "x", Args: []string{"a"}, Security: Security{AllowRoot: true, AddCapabilities: []string{c.name}}}, uidBase: c.uidBase}
		if _, err := p.ociSpec(); errors.Is(err, ErrDenied) != c.refused {
			t.Errorf("%s with user ids from %d: got %v, want it refused: %v", c.name, c.uidBase, err, c.refused)
		}
	}
}

// TestAsUserHasNoCapabilities: with CAP_SYS_RESOURCE quotas would not hold.
func TestAsUserHasNoCapabilities(t *testing.T) {
	if unix.Geteuid() != 0 {
		t.Skip("needs root, to become another user")
	}
	before := hasCapability(unix.CAP_DAC_OVERRIDE)
	err := asUser(65534, 65534, func() error {
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var data [2]unix.CapUserData
		if err := unix.Capget(&header, &data[0]); err != nil {
			return err
		}
		if got := data[0].Effective | data[1].Effective | data[0].Permitted | data[1].Permitted; got != 0 {
			t.Errorf("capabilities %#x are left", got)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if hasCapability(unix.CAP_DAC_OVERRIDE) != before {
		t.Error("another thread lost its capabilities")
	}
}
