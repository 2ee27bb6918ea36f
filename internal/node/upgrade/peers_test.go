package upgrade

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/update"
	"oscine.dev/oscine/internal/update/share"
)

// What came from where is shown, and kept with the upgrade. A peer that lied is reported once
// it was found out, one that is busy while it is waited for.
func TestPeersAreTold(t *testing.T) {
	w := newWorld(t)
	digest := strings.Repeat("ab", 32)
	var asked update.Options
	w.opened = func(o update.Options) {
		asked = o
		o.Trouble("edge1:7443", fmt.Errorf("%w: a byte differs", update.ErrPeer))
		o.Trouble("edge2:444", share.ErrSelf)
		o.Trouble("edge3:7443", update.ErrUnreachable)
	}
	m := w.daemon(object.MachineUpdate{Source: "https://r.example.com", Peers: []string{"edge1", "edge2:444"}})
	var waits string
	w.fetches = func() {
		asked.Trouble("edge1:7443", update.ErrBusy)
		waits = m.Status().Current.Message
		asked.Received("targets/1.1/amd64-cloud/"+digest+".root.from-1.0", "edge1:7443", 1000)
		asked.Received("targets/1.1/amd64-cloud/"+digest+".root.from-1.0", "", 500)
		asked.Received("targets/1.1/amd64-cloud/"+digest+".root.from-1.0", "edge1:7443", 24)
	}
	start(t, m, Request{Options: Options{DownloadOnly: true}})
	u := w.awaitStage(m, Armed)
	want := []Received{{"root.from-1.0", "edge1:7443", 2048}, {"root.from-1.0", "", 1000}} // the image and the root
	if diff := cmp.Diff(want, u.Files); diff != "" {
		t.Error(diff)
	}
	if peers, sources := m.Received(); peers != 2048 || sources != 1000 {
		t.Errorf("%d bytes from peers and %d from sources", peers, sources)
	}
	if !slices.Equal(asked.Peers, []string{"edge1:7443", "edge2:444"}) || !strings.Contains(waits, "waiting for the peer edge1:7443") {
		t.Errorf("asked %v, waited with %q", asked.Peers, waits)
	}
	if strings.Contains(u.Message, "waiting for the peer") {
		t.Errorf("it waits no longer: %s", u.Message)
	}
	w.mu.Lock()
	told := slices.Contains(w.notes, "PeerRefused")
	w.mu.Unlock()
	if !told {
		t.Errorf("the peer that lied was not told of: %v", w.notes)
	}
	w.stop()
	w.stop = nil
	w.opened, w.fetches = nil, nil
	if got := w.daemon(object.MachineUpdate{}).Status().Current.Files; cmp.Diff(want, got) != "" {
		t.Errorf("after a restart: %v", got)
	}
}

// The files of a release that this node verified go to peers, no others.
func TestOpenPinned(t *testing.T) {
	w := newWorld(t)
	one := pinned("1.1", 1)
	w.offered = []*update.Manifest{one}
	w.packs["sha256:"+strings.Repeat("22", 32)] = "" // installed by an admin
	m := w.daemon(object.MachineUpdate{})
	pack, model := one.Packs[0].SHA256, one.Models[0].SHA256
	var admins update.Digest
	if err := admins.UnmarshalText([]byte(strings.Repeat("22", 32))); err != nil {
		t.Fatal(err)
	}
	if _, err := m.OpenPinned(pack); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("before the upgrade: %v", err)
	}
	start(t, m, Request{Source: "/releases", Options: Options{DownloadOnly: true}})
	w.awaitStage(m, Armed)
	for _, d := range []update.Digest{pack, model} {
		f, err := m.OpenPinned(d)
		if err != nil {
			t.Errorf("%s: %v", d, err)
			continue
		}
		f.Close()
	}
	if _, err := m.OpenPinned(admins); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a pack that no release pins: %v", err)
	}
	if _, err := m.Metadata("timestamp.json"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("metadata that was never seen: %v", err)
	}
}

// A peer that sent a wrong pack costs another try, and no failure.
func TestPinOfLyingPeer(t *testing.T) {
	w := newWorld(t)
	one := pinned("1.1", 1)
	w.offered = []*update.Manifest{one}
	lies := 2
	w.lies = func(string) error {
		if lies--; lies >= 0 {
			return update.ErrPeer
		}
		return nil
	}
	var err error
	if w.cache, err = share.Open(filepath.Join(w.dir, "share"), 1<<20, func() error { return nil }); err != nil {
		t.Fatal(err)
	}
	m := w.daemon(object.MachineUpdate{})
	start(t, m, Request{Source: "/releases", Options: Options{DownloadOnly: true}})
	w.awaitStage(m, Armed)
	if lies > -2 {
		t.Errorf("%d lies are left", lies)
	}
}
