package node

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"go.etcd.io/bbolt"

	"oscine.dev/oscine/internal/node/allocate"
	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/place"
)

func parse(t *testing.T, text string) object.Object {
	t.Helper()
	objects, err := object.Kinds().Parse(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return objects[0]
}

func workloadNamed(t *testing.T, name, image string) object.Object {
	t.Helper()
	return parse(t, "apiVersion: oscine.dev/v1\nkind: Workload\nmetadata: {name: "+name+"}\nspec: {image: "+image+"}\n")
}

func TestStoreKeepsObjectsAndPlacements(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	s, err := openStore(path, object.Kinds())
	if err != nil {
		t.Fatal(err)
	}
	a, b := workloadNamed(t, "a", "one"), workloadNamed(t, "b", "two")
	if err := s.put([]object.Object{a, b}); err != nil {
		t.Fatal(err)
	}
	if err := s.SetPlacements([]allocate.Placed{{Object: a, Placement: place.Placement{CPUs: []int{3}}}}); err != nil {
		t.Fatal(err)
	}
	// A new manifest keeps the placement.
	if err := s.put([]object.Object{workloadNamed(t, "a", "three")}); err != nil {
		t.Fatal(err)
	}
	if err := s.close(); err != nil {
		t.Fatal(err)
	}

	if s, err = openStore(path, object.Kinds()); err != nil {
		t.Fatal(err)
	}
	defer s.close()
	records, err := s.all()
	if err != nil || len(records) != 2 {
		t.Fatalf("got %d records, %v, want 2", len(records), err)
	}
	if got := records[0].Object.(*object.Workload).Spec.Image; got != "three" {
		t.Errorf("image: got %q, want three", got)
	}
	if got := string(records[0].Placement); !strings.Contains(got, `"cpus":[3]`) {
		t.Errorf("placement: got %s", got)
	}
	if err := s.delete(object.Key{Kind: object.KindWorkload, Name: "a"}); err != nil {
		t.Error(err)
	}
	if err := s.delete(object.Key{Kind: object.KindWorkload, Name: "a"}); !errors.Is(err, ErrNotFound) {
		t.Errorf("delete again: got %v, want ErrNotFound", err)
	}
}

func TestStoreReportsWhatItCannotRead(t *testing.T) {
	s, err := openStore(filepath.Join(t.TempDir(), "state.db"), object.Kinds())
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	if err := s.put([]object.Object{workloadNamed(t, "good", "one")}); err != nil {
		t.Fatal(err)
	}
	err = s.db.Update(func(tx *bbolt.Tx) error {
		return tx.Bucket([]byte(object.KindWorkload)).Put([]byte("bad"), []byte(`{"manifest": {"kind": "Later"}}`))
	})
	if err != nil {
		t.Fatal(err)
	}
	records, err := s.all()
	if len(records) != 1 || err == nil || !strings.Contains(err.Error(), "stored Workload/bad") {
		t.Errorf("got %d records and %v, want the good one and an error that names the bad one", len(records), err)
	}
}

func TestStoreIsHeldByOneDaemon(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	s, err := openStore(path, object.Kinds())
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	if _, err := openStore(path, object.Kinds()); err == nil || !strings.Contains(err.Error(), "another oscined uses it") {
		t.Errorf("got %v, want an error that names the other daemon", err)
	}
}
