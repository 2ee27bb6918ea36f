package configuration

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"

	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/pki"
)

// authority is the same for all Machines of this test.
func authority(t testing.TB) string {
	t.Helper()
	pair, err := pki.NewAuthority("test")
	if err != nil {
		t.Fatal(err)
	}
	return string(pair.Certificate)
}

func machine(t testing.TB, ca, spec string) *object.Machine {
	t.Helper()
	text := fmt.Sprintf("apiVersion: oscine.dev/v1\nkind: Machine\nmetadata: {name: n1}\nspec:\n  api: {ca: %q, joinToken: %q}\n%s", ca, "AAAABBBBCCCCDDDDEEEEFFFF22", spec)
	m, err := object.ParseMachine(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func paths(t testing.TB) Paths {
	t.Helper()
	dir := t.TempDir()
	return Paths{Machine: filepath.Join(dir, "machine.yaml"), History: filepath.Join(dir, "configurations"), Given: filepath.Join(dir, "given.yaml")}
}

// daemon opens a Store as a start of the daemon does.
func daemon(t testing.TB, p Paths, fallback *object.Machine) *Store {
	t.Helper()
	s := Open(p, nil, slog.New(slog.DiscardHandler))
	m := fallback
	if raw, err := os.ReadFile(p.Machine); err == nil {
		if m, err = decode(raw); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Use(m); err != nil {
		t.Fatal(err)
	}
	return s
}

// using is the Machine in use.
func using(s *Store) *object.Machine {
	_, m, _ := s.Revision(0) // never fails
	return m
}

func asked(s *Store) bool {
	select {
	case <-s.Restart():
		return true
	default:
		return false
	}
}

func TestConfirmedChangeStays(t *testing.T) {
	ca, p := authority(t), paths(t)
	first := machine(t, ca, "  hostname: a\n")
	s := daemon(t, p, first)
	got, err := s.Apply(machine(t, ca, "  hostname: b\n"), Options{By: "me"})
	want := Result{Revision: 2, Changes: []Change{{"spec.hostname", `"a"`, `"b"`}}, Within: DefaultTrial}
	if diff := cmp.Diff(want, got); diff != "" || err != nil || !asked(s) {
		t.Fatalf("apply: %v, restart %t (-want +got):\n%s", err, asked(s), diff)
	}
	if err := s.Confirm(2); !errdefs.IsUnavailable(err) {
		t.Errorf("confirmed before the daemon started: got %v", err)
	}
	s = daemon(t, p, first)
	if using(s).Spec.Hostname != "b" || s.OnTrial() != 2 {
		t.Fatalf("got %s, on trial %d", using(s).Spec.Hostname, s.OnTrial())
	}
	if err := s.Confirm(1); !errors.Is(err, ErrNoTrial) {
		t.Errorf("another revision: got %v", err)
	}
	if err := s.Confirm(2); err != nil {
		t.Fatal(err)
	}
	if s = daemon(t, p, first); using(s).Spec.Hostname != "b" || s.OnTrial() != 0 {
		t.Errorf("after a restart: got %s, on trial %d", using(s).Spec.Hostname, s.OnTrial())
	}
	if r, err := s.Return(1, Options{}); err != nil || r.Revision != 3 {
		t.Errorf("return: got %+v, %v", r, err)
	}
	if s = daemon(t, p, first); using(s).Spec.Hostname != "a" {
		t.Errorf("returned to %s", using(s).Spec.Hostname)
	}
}

// TestUnconfirmedChangeIsTakenBack ends a trial by its time, and by a second start.
func TestUnconfirmedChangeIsTakenBack(t *testing.T) {
	ca := authority(t)
	for _, crash := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			p, first := paths(t), machine(t, ca, "  hostname: a\n")
			s := daemon(t, p, first)
			if _, err := s.Apply(machine(t, ca, "  hostname: b\n"), Options{Within: time.Minute}); err != nil {
				t.Fatal(err)
			}
			if s = daemon(t, p, first); using(s).Spec.Hostname != "b" {
				t.Fatal("it is not tried")
			}
			if !crash {
				if err := s.Watch(t.Context()); err != nil || !asked(s) {
					t.Fatalf("got %v, restart %t", err, asked(s))
				}
			}
			s = daemon(t, p, first)
			if using(s).Spec.Hostname != "a" || s.OnTrial() != 0 {
				t.Errorf("crash %t: got %s, on trial %d", crash, using(s).Spec.Hostname, s.OnTrial())
			}
			h := s.History()
			if len(h) != 3 || !strings.Contains(h[1].Note, "rolled back") || !strings.Contains(h[0].Note, "revision 2 was rolled back") {
				t.Errorf("crash %t: history %+v", crash, h)
			}
			if err := s.Confirm(2); !errors.Is(err, ErrNoTrial) {
				t.Errorf("confirmed too late: got %v", err)
			}
		})
	}
}

// TestPowerCut leaves off after each file that Apply writes.
func TestPowerCut(t *testing.T) {
	ca := authority(t)
	for written := range 5 {
		p, first := paths(t), machine(t, ca, "  hostname: a\n")
		s := daemon(t, p, first)
		before := files(t, p)
		if _, err := s.Apply(machine(t, ca, "  hostname: b\n"), Options{}); err != nil {
			t.Fatal(err)
		}
		after := files(t, p)
		for i, path := range []string{s.historyFile(), s.beforeFile(), s.trialFile(), p.Machine} {
			if i >= written {
				put(t, path, before[path])
			} else {
				put(t, path, after[path])
			}
		}
		s = daemon(t, p, first)
		if got := using(s).Spec.Hostname; (got == "b") != (written == 4) {
			t.Errorf("%d files written: got %s", written, got)
		}
		// Whatever it was: a start later, without a confirmation, it is the one before.
		if s = daemon(t, p, first); using(s).Spec.Hostname != "a" || s.OnTrial() != 0 {
			t.Errorf("%d files written: ended with %s, on trial %d", written, using(s).Spec.Hostname, s.OnTrial())
		}
		if _, err := s.Apply(machine(t, ca, "  hostname: c\n"), Options{}); err != nil {
			t.Errorf("%d files written: the next attempt: %v", written, err)
		}
	}
}

// TestTakenBackWithoutRoom has a disk on which no file can be made: the daemon
// starts, with the Machine before.
func TestTakenBackWithoutRoom(t *testing.T) {
	ca, p := authority(t), paths(t)
	first := machine(t, ca, "  hostname: a\n")
	s := daemon(t, p, first)
	if _, err := s.Apply(machine(t, ca, "  hostname: b\n"), Options{}); err != nil {
		t.Fatal(err)
	}
	daemon(t, p, first)
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
		t.Fatal(err)
	}
	signal.Ignore(syscall.SIGXFSZ)
	full := before
	full.Cur = 0
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &full); err != nil {
		t.Fatal(err)
	}
	s = Open(p, nil, slog.New(slog.DiscardHandler))
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(p.Machine)
	if err != nil || strings.Contains(string(raw), `"hostname":"b"`) || s.OnTrial() != 0 {
		t.Errorf("got %s, %v, on trial %d", raw, err, s.OnTrial())
	}
}

func files(t *testing.T, p Paths) map[string][]byte {
	content := map[string][]byte{}
	for _, path := range []string{filepath.Join(p.History, "revisions.json"), filepath.Join(p.History, "before.json"), filepath.Join(p.History, "trial.json"), p.Machine} {
		if raw, err := os.ReadFile(path); err == nil {
			content[path] = raw
		}
	}
	return content
}

func put(t *testing.T, path string, content []byte) {
	t.Helper()
	if content == nil {
		_ = os.Remove(path)
		return
	}
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestRefused(t *testing.T) {
	ca, p := authority(t), paths(t)
	s := daemon(t, p, machine(t, ca, ""))
	other := machine(t, ca, "")
	other.Metadata.Name = "n2"
	keyed := machine(t, ca, "")
	keyed.Spec.API.Key, keyed.Spec.API.Certificate = "k", "c"
	for want, m := range map[string]*object.Machine{
		"is for another one":       other,
		"is not this node's":       machine(t, authority(t), ""),
		"the node keeps its own":   keyed,
		"no interface called eth7": machine(t, ca, "  hostname: b\n"),
	} {
		s.check = nil
		if strings.Contains(want, "eth7") {
			s.check = func(*object.Machine) error { return errors.New(want) }
		}
		if _, err := s.Apply(m, Options{}); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	s.check = nil
	for _, within := range []time.Duration{time.Second, 2 * time.Hour, -1} {
		if _, err := s.Apply(machine(t, ca, "  hostname: b\n"), Options{Within: within}); !errdefs.IsInvalidArgument(err) {
			t.Errorf("trial of %s: got %v", within, err)
		}
	}
	if r, err := s.Apply(machine(t, ca, ""), Options{}); err != nil || len(r.Changes) != 0 || asked(s) {
		t.Errorf("unchanged: got %+v, %v", r, err)
	}
	if r, err := s.Apply(machine(t, ca, "  hostname: b\n"), Options{DryRun: true}); err != nil || len(r.Changes) != 1 || asked(s) || s.OnTrial() != 0 {
		t.Errorf("dry run: got %+v, %v", r, err)
	}
	if _, err := s.Return(9, Options{}); !errdefs.IsNotFound(err) {
		t.Errorf("no revision: got %v", err)
	}
	if _, err := s.Apply(machine(t, ca, "  hostname: b\n"), Options{}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Apply(machine(t, ca, "  hostname: c\n"), Options{}); !errors.Is(err, ErrOnTrial) {
		t.Errorf("a second change: got %v", err)
	}
}

// TestGiven has a Machine from outside, which counts until another is applied and again once it changes.
func TestGiven(t *testing.T) {
	ca, p := authority(t), paths(t)
	put(t, p.Given, []byte("first"))
	s := daemon(t, p, machine(t, ca, ""))
	if Replaced(p) {
		t.Error("replaced before anything was applied")
	}
	if _, err := s.Apply(machine(t, ca, "  hostname: b\n"), Options{}); err != nil {
		t.Fatal(err)
	}
	if !Replaced(p) {
		t.Error("the applied Machine does not count")
	}
	put(t, p.Given, []byte("second"))
	if Replaced(p) {
		t.Error("a newly given Machine does not count")
	}
}

func TestSecretsAreHidden(t *testing.T) {
	ca := authority(t)
	a, b := machine(t, ca, ""), machine(t, ca, "")
	a.Spec.API.Key, b.Spec.API.Key, b.Spec.API.JoinToken = "one", "two", "other"
	raw, err := json.Marshal([]any{Diff(a, b), Redacted(a)})
	if err != nil {
		t.Fatal(err)
	}
	for _, value := range []string{"one", "two", "other", a.Spec.API.JoinToken} {
		if strings.Contains(string(raw), value) {
			t.Errorf("%s tells %q", raw, value)
		}
	}
	if a.Spec.API.Key != "one" {
		t.Error("Redacted changed its argument")
	}
}

// TestHistoryIsBounded also survives files that cannot be read.
func TestHistoryIsBounded(t *testing.T) {
	ca, p := authority(t), paths(t)
	s := daemon(t, p, machine(t, ca, ""))
	for range 2 * maxRevisions {
		s.add(Revision{})
	}
	if len(s.history) != maxRevisions || s.history[maxRevisions-1].Number != 2*maxRevisions+1 {
		t.Errorf("got %d revisions, the last %d", len(s.history), s.history[len(s.history)-1].Number)
	}
	put(t, s.historyFile(), []byte("{"))
	put(t, s.trialFile(), []byte("[3]"))
	if s = daemon(t, p, machine(t, ca, "")); len(s.History()) != 1 {
		t.Errorf("got %d revisions", len(s.History()))
	}
}
