package reconcile

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"oscine.dev/oscine/internal/node/allocate"
	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/place"
)

// things is a table with one made-up kind.
func things() object.Table {
	return object.Table{{Kind: "Thing", New: func() object.Object { return &thing{} }}}
}

func storeAt(t *testing.T, path string) *Store {
	t.Helper()
	s, err := OpenStore(path, things())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// record returns one record and what its manifest says.
func (s *Store) record(t *testing.T, name string) (Record, object.Object, error) {
	t.Helper()
	records, err := s.Records()
	if err != nil {
		t.Fatal(err)
	}
	for _, rec := range records {
		if rec.Key.Name == name {
			obj, err := s.Parse(rec)
			return rec, obj, err
		}
	}
	return Record{}, nil, ErrNotFound
}

func TestStoreKeepsObjects(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	s := storeAt(t, path)
	born := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	a, b := newThing("a", "one", ""), newThing("b", "two", "")
	if err := s.Put([]object.Object{a, b}, born); err != nil {
		t.Fatal(err)
	}
	if err := s.SetPlacements([]allocate.Placed{{Object: a, Placement: place.Placement{CPUs: []int{3}}}}); err != nil {
		t.Fatal(err)
	}
	// A new manifest keeps the placement and the time of creation.
	if err := s.Put([]object.Object{newThing("a", "three", "")}, born.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.MarkStopped(b.Key(), true), s.Begin(a.Key(), keyOf("nobody")), s.MarkDeleting(b.Key()), s.Close()); err != nil {
		t.Fatal(err)
	}

	s = storeAt(t, path)
	rec, obj, err := s.record(t, "a")
	if err != nil || obj.(*thing).Spec.Text != "three" || !rec.Created.Equal(born) || rec.Starts != 2 || rec.Deleting {
		t.Errorf("got %+v, %+v, %v", rec, obj, err)
	}
	if got := string(rec.Placement); !strings.Contains(got, `"cpus":[3]`) {
		t.Errorf("placement: got %s", got)
	}
	if rec, _, err := s.record(t, "b"); err != nil || !rec.Deleting || !rec.Stopped {
		t.Errorf("got %+v, %v, want one that is stopped and to be deleted", rec, err)
	}
	if err := s.MarkStopped(b.Key(), false); err != nil {
		t.Error(err)
	}
	if rec, _, _ := s.record(t, "b"); rec.Stopped || rec.Starts != 1 {
		t.Errorf("started again: got %+v", rec)
	}
	if err := errors.Join(s.Began(a.Key()), s.ForgetPlacement(a), s.Delete(b.Key()), s.Delete(b.Key())); err != nil {
		t.Fatal(err)
	}
	if rec, _, _ := s.record(t, "a"); rec.Starts != 0 || rec.Placement != nil {
		t.Errorf("got %+v", rec)
	}
	if _, _, err := s.record(t, "b"); !errors.Is(err, ErrNotFound) {
		t.Errorf("deleted: got %v, want ErrNotFound", err)
	}
	if err := s.SetPlacements([]allocate.Placed{{Object: a}, {Object: b}}); !errors.Is(err, ErrNotFound) {
		t.Errorf("a placement of what is not stored: got %v, want ErrNotFound", err)
	}
	if rec, _, _ := s.record(t, "a"); rec.Placement != nil {
		t.Error("one of two placements was stored, want none")
	}
}

// What cannot be read is listed with the reason, and can be replaced and deleted.
func TestStoreListsWhatItCannotRead(t *testing.T) {
	s := storeAt(t, filepath.Join(t.TempDir(), "state.db"))
	if err := s.Put([]object.Object{newThing("good", "", "")}, time.Time{}); err != nil {
		t.Fatal(err)
	}
	err := s.db.Update(func(tx *bbolt.Tx) error {
		b := tx.Bucket([]byte("Thing"))
		return errors.Join(b.Put([]byte("later"), []byte(`{"manifest": {"kind": "Later"}}`)), b.Put([]byte("torn"), []byte(`{"mani`)),
			b.Put([]byte("other"), b.Get([]byte("good"))))
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"later", "torn", "other"} {
		if _, _, err := s.record(t, name); err == nil || errors.Is(err, ErrNotFound) {
			t.Errorf("%s: got %v, want a record and why it cannot be read", name, err)
		}
	}
	if err := errors.Join(s.Begin(keyOf("torn")), s.Put([]object.Object{newThing("torn", "new", "")}, time.Time{}), s.Delete(keyOf("later"))); err != nil {
		t.Fatal(err)
	}
	if _, obj, err := s.record(t, "torn"); err != nil || obj.(*thing).Spec.Text != "new" {
		t.Errorf("replaced: got %+v, %v", obj, err)
	}
}

func TestStoreIsHeldByOneDaemon(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	storeAt(t, path)
	if _, err := OpenStore(path, things()); err == nil || !strings.Contains(err.Error(), "another oscined uses it") {
		t.Errorf("got %v, want an error that names the other daemon", err)
	}
}

func FuzzRecord(f *testing.F) {
	f.Add([]byte(`{"manifest":{"apiVersion":"oscine.dev/v1","kind":"Thing","metadata":{"name":"a"},"spec":{}},"starts":1}`))
	f.Add([]byte(`{"manifest": nul`))
	s, err := OpenStore(filepath.Join(f.TempDir(), "state.db"), things())
	if err != nil {
		f.Fatal(err)
	}
	defer s.Close()
	s.db.NoSync = true
	f.Fuzz(func(t *testing.T, raw []byte) {
		err := s.db.Update(func(tx *bbolt.Tx) error { return tx.Bucket([]byte("Thing")).Put([]byte("a"), raw) })
		if err != nil {
			t.Fatal(err)
		}
		if rec, obj, err := s.record(t, "a"); err == nil && obj.Key() != rec.Key {
			t.Errorf("%q was read as %s", raw, obj.Key())
		}
	})
}

// What is placed nowhere costs no write when it is forgotten, however often it is tried
// again.
func TestForgettingNoPlacementWritesNothing(t *testing.T) {
	s := storeAt(t, filepath.Join(t.TempDir(), "state.db"))
	a := newThing("a", "one", "")
	if err := s.Put([]object.Object{a}, time.Now()); err != nil {
		t.Fatal(err)
	}
	writes := func() int64 {
		stats := s.db.Stats()
		return stats.TxStats.GetWrite()
	}
	forget := func() {
		t.Helper()
		if err := s.ForgetPlacement(a); err != nil {
			t.Fatal(err)
		}
	}
	before := writes()
	forget()
	if n := writes() - before; n != 0 {
		t.Errorf("%d writes for nothing", n)
	}
	if err := s.SetPlacements([]allocate.Placed{{Object: a, Placement: place.Placement{CPUs: []int{3}}}}); err != nil {
		t.Fatal(err)
	}
	forget()
	if rec, _, err := s.record(t, "a"); err != nil || !isNull(rec.Placement) {
		t.Errorf("got %s, %v", rec.Placement, err)
	}
}
