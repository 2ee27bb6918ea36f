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
type store struct {
	db    *bbolt.DB
	kinds object.Table
}

// lockTimeout bounds the wait for another daemon that holds the file.
const lockTimeout = 2 * time.Second

func openStore(path string, kinds object.Table) (*store, error) {
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
		for _, row := range kinds.Stored() {
			if _, err := tx.CreateBucketIfNotExists([]byte(row.Kind)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("prepare the store %s: %w", path, err), db.Close())
	}
	return &store{db, kinds}, nil
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
			b, key := tx.Bucket([]byte(obj.Key().Kind)), []byte(obj.Key().Name)
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
				return fmt.Errorf("encode the placement of %s: %w", p.Object.Key(), err)
			}
			if err := setPlacement(tx, p.Object.Key(), raw); err != nil {
				return err
			}
		}
		return nil
	})
}

// ForgetPlacement implements allocate.Store.
func (s *store) ForgetPlacement(obj object.Object) error {
	return s.db.Update(func(tx *bbolt.Tx) error { return setPlacement(tx, obj.Key(), nil) })
}

func setPlacement(tx *bbolt.Tx, key object.Key, placement json.RawMessage) error {
	b := tx.Bucket([]byte(key.Kind))
	var rec storedRecord
	if err := getJSON(b, []byte(key.Name), &rec); err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	rec.Placement = placement
	return putJSON(b, []byte(key.Name), rec)
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

func (s *store) delete(key object.Key) error {
	return s.db.Update(func(tx *bbolt.Tx) error {
		b := tx.Bucket([]byte(key.Kind))
		if b == nil || b.Get([]byte(key.Name)) == nil {
			return fmt.Errorf("%s: %w", key, ErrNotFound)
		}
		return b.Delete([]byte(key.Name))
	})
}

// all returns every record; one that this release cannot read is reported in
// the error and left in place.
func (s *store) all() (records []record, err error) {
	var unreadable []error
	err = s.db.View(func(tx *bbolt.Tx) error {
		for _, row := range s.kinds.Stored() {
			err := tx.Bucket([]byte(row.Kind)).ForEach(func(key, value []byte) error {
				rec, err := s.decodeRecord(value)
				if err != nil {
					unreadable = append(unreadable, fmt.Errorf("stored %s/%s: %w", row.Kind, key, err))
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

func (s *store) decodeRecord(raw []byte) (record, error) {
	var stored storedRecord
	if err := json.Unmarshal(raw, &stored); err != nil {
		return record{}, err
	}
	objects, err := s.kinds.Parse(bytes.NewReader(stored.Manifest))
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
