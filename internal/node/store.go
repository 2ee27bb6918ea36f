package node

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/errdefs"
	"go.etcd.io/bbolt"
	bbolterrors "go.etcd.io/bbolt/errors"

	"oscine.dev/oscine/internal/node/allocate"
	"oscine.dev/oscine/internal/object"
)

// ErrNotFound is returned for an object that was never applied or is deleted.
var ErrNotFound = errdefs.ErrNotFound.WithMessage("not found")

// record is an object as stored: what was asked for and where it was placed.
type record struct {
	Object    object.Object
	Placement json.RawMessage // of the kind's controller; nil before the first placement
}

// storedRecord is a record's JSON.
type storedRecord struct {
	Manifest  json.RawMessage `json:"manifest"`
	Placement json.RawMessage `json:"placement,omitempty"`
}

// store keeps the records in one bbolt file, a bucket a kind. A transaction is
// on disk before its method returns.
type store struct{ db *bbolt.DB }

// lockTimeout bounds the wait for another daemon that holds the file.
const lockTimeout = 2 * time.Second

var storedKinds = []object.Kind{object.KindWorkload, object.KindModel}

func openStore(path string) (*store, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("make the state folder: %w", err)
	}
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: lockTimeout})
	if errors.Is(err, bbolterrors.ErrTimeout) {
		return nil, fmt.Errorf("open the store %s: another oscined uses it", path)
	}
	if err != nil {
		return nil, fmt.Errorf("open the store %s: %w", path, err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		for _, kind := range storedKinds {
			if _, err := tx.CreateBucketIfNotExists([]byte(kind)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("prepare the store %s: %w", path, err), db.Close())
	}
	return &store{db}, nil
}

func (s *store) close() error { return s.db.Close() }

// put stores objects, all or none; the placement of an object that is there
// already is kept.
func (s *store) put(objects []object.Object) error {
	err := s.db.Update(func(tx *bbolt.Tx) error {
		for _, obj := range objects {
			raw, err := json.Marshal(obj)
			if err != nil {
				return err
			}
			b, key := tx.Bucket([]byte(obj.ObjectKind())), []byte(obj.ObjectName())
			var rec storedRecord
			if old := b.Get(key); old != nil {
				if err := json.Unmarshal(old, &rec); err != nil {
					return err
				}
			}
			rec.Manifest = raw
			if err := putJSON(b, key, rec); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("write the store: %w; nothing was changed", err)
	}
	return nil
}

// SetPlacements implements allocate.Store.
func (s *store) SetPlacements(placed []allocate.Placed) error {
	return s.db.Update(func(tx *bbolt.Tx) error {
		for _, p := range placed {
			raw, err := json.Marshal(p.Placement)
			if err != nil {
				return fmt.Errorf("encode the placement of %s: %w", keyOf(p.Object), err)
			}
			if err := setPlacement(tx, keyOf(p.Object), raw); err != nil {
				return err
			}
		}
		return nil
	})
}

// ForgetPlacement implements allocate.Store.
func (s *store) ForgetPlacement(obj object.Object) error {
	return s.db.Update(func(tx *bbolt.Tx) error { return setPlacement(tx, keyOf(obj), nil) })
}

func setPlacement(tx *bbolt.Tx, key objectKey, placement json.RawMessage) error {
	b := tx.Bucket([]byte(key.kind))
	var rec storedRecord
	if err := getJSON(b, []byte(key.name), &rec); err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	rec.Placement = placement
	return putJSON(b, []byte(key.name), rec)
}

// Objects implements allocate.Store.
func (s *store) Objects() ([]object.Object, error) {
	records, _ := s.all() // those that cannot be read were reported at the start
	objects := make([]object.Object, len(records))
	for i, rec := range records {
		objects[i] = rec.Object
	}
	return objects, nil
}

func (s *store) delete(kind object.Kind, name string) error {
	return s.db.Update(func(tx *bbolt.Tx) error {
		b := tx.Bucket([]byte(kind))
		if b == nil || b.Get([]byte(name)) == nil {
			return fmt.Errorf("%s/%s: %w", kind, name, ErrNotFound)
		}
		return b.Delete([]byte(name))
	})
}

// all returns every record; one that this release cannot read is reported in
// the error and left in place.
func (s *store) all() (records []record, err error) {
	var unreadable []error
	err = s.db.View(func(tx *bbolt.Tx) error {
		for _, kind := range storedKinds {
			err := tx.Bucket([]byte(kind)).ForEach(func(key, value []byte) error {
				rec, err := decodeRecord(value)
				if err != nil {
					unreadable = append(unreadable, fmt.Errorf("stored %s/%s: %w", kind, key, err))
					return nil
				}
				records = append(records, rec)
				return nil
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	return records, errors.Join(append(unreadable, err)...)
}

func decodeRecord(raw []byte) (record, error) {
	var stored storedRecord
	if err := json.Unmarshal(raw, &stored); err != nil {
		return record{}, err
	}
	objects, err := object.Parse(bytes.NewReader(stored.Manifest))
	if err != nil {
		return record{}, err
	}
	if len(objects) != 1 {
		return record{}, fmt.Errorf("%d objects in one record", len(objects))
	}
	return record{objects[0], stored.Placement}, nil
}

func getJSON(b *bbolt.Bucket, key []byte, into any) error {
	raw := b.Get(key)
	if raw == nil {
		return ErrNotFound
	}
	return json.Unmarshal(raw, into)
}

func putJSON(b *bbolt.Bucket, key []byte, value any) error {
	raw, err := json.Marshal(value)
	if err != nil {
		return err
	}
	return b.Put(key, raw)
}
