package reconcile

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.etcd.io/bbolt"
	bbolterrors "go.etcd.io/bbolt/errors"

	"oscine.dev/oscine/internal/node/allocate"
	"oscine.dev/oscine/internal/object"
)

// Record is an object as it is stored: what was asked for, as text that this
// release may not be able to read, and what the node noted beside it.
type Record struct {
	Key object.Key
	// Raw is the whole record, of which the others were read; Problem says why
	// that failed.
	Problem   error
	Manifest  json.RawMessage
	Values    map[string][]byte // of a Confidential object, beside its manifest
	Placement json.RawMessage   // nil before the first placement
	Instances []json.RawMessage // placements of the instances after the first, nil for none
	Created   time.Time         // zero for a record of an earlier release
	Deleting  bool              // its deletion was asked for and has not ended
	Stopped   bool              // somebody stopped it
	// Starts is how often in succession the object was being started when the
	// daemon ended without closing the store.
	Starts int
}

// storedRecord is a record's JSON.
type storedRecord struct {
	Manifest  json.RawMessage   `json:"manifest"`
	Values    map[string][]byte `json:"values,omitempty"`
	Placement json.RawMessage   `json:"placement,omitempty"`
	Instances []json.RawMessage `json:"instances,omitempty"`
	Created   time.Time         `json:"created,omitzero"`
	Deleting  bool              `json:"deleting,omitempty"`
	Stopped   bool              `json:"stopped,omitempty"`
	Starts    int               `json:"starts,omitempty"`
}

// Store keeps records in one bbolt file, a bucket for each kind. A change is on
// disk before its method returns. It is safe for concurrent use.
type Store struct {
	db    *bbolt.DB
	kinds object.Table
}

// lockTimeout bounds the wait for another daemon that holds the file.
const lockTimeout = 2 * time.Second

// OpenStore opens or makes the file for objects of the stored kinds.
func OpenStore(path string, kinds object.Table) (*Store, error) {
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
		for _, kind := range kinds.Stored() {
			if _, err := tx.CreateBucketIfNotExists([]byte(kind.Kind)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("prepare the store %s: %w", path, err), db.Close())
	}
	return &Store{db, kinds}, nil
}

// Close closes the file. It does not forget which objects were being started.
func (s *Store) Close() error { return s.db.Close() }

// Records returns every record in order of kind and name, those that cannot be
// read with the reason in Problem. Manifests are not parsed.
func (s *Store) Records() ([]Record, error) {
	var records []Record
	err := s.db.View(func(tx *bbolt.Tx) error {
		for _, kind := range s.kinds.Stored() {
			err := tx.Bucket([]byte(kind.Kind)).ForEach(func(name, value []byte) error {
				rec := Record{Key: object.Key{Kind: kind.Kind, Name: string(name)}}
				var stored storedRecord
				if rec.Problem = json.Unmarshal(value, &stored); rec.Problem == nil {
					rec.Manifest, rec.Values, rec.Placement, rec.Instances, rec.Created = stored.Manifest, stored.Values, stored.Placement, stored.Instances, stored.Created
					rec.Deleting, rec.Stopped, rec.Starts = stored.Deleting, stored.Stopped, stored.Starts
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
	if err != nil {
		return nil, fmt.Errorf("read the store: %w", err)
	}
	return records, nil
}

// Parse reads the manifest of a record.
func (s *Store) Parse(rec Record) (object.Object, error) {
	if rec.Problem != nil {
		return nil, rec.Problem
	}
	objects, err := s.kinds.Parse(bytes.NewReader(rec.Manifest))
	if err != nil {
		return nil, err
	}
	if len(objects) != 1 || objects[0].Key() != rec.Key {
		return nil, fmt.Errorf("the record holds another object than %s", rec.Key)
	}
	if secret, ok := objects[0].(object.Confidential); ok {
		if missing := secret.Keep(rec.Values); len(missing) > 0 {
			return nil, fmt.Errorf("the record has no value for %s", strings.Join(missing, ", "))
		}
	}
	return objects[0], nil
}

// Put stores objects as being started, all or none; the placement and the time
// of creation of an object that is there already are kept.
func (s *Store) Put(objects []object.Object, now time.Time) error {
	err := s.db.Update(func(tx *bbolt.Tx) error {
		for _, obj := range objects {
			raw, err := json.Marshal(obj)
			if err != nil {
				return err
			}
			key := obj.Key()
			rec := storedRecord{Created: now}
			if old := tx.Bucket([]byte(key.Kind)).Get([]byte(key.Name)); old != nil {
				if json.Unmarshal(old, &rec) != nil { // what cannot be read is replaced
					rec = storedRecord{Created: now}
				}
			}
			rec.Manifest, rec.Values, rec.Deleting, rec.Stopped, rec.Starts = raw, nil, false, false, 1
			if secret, ok := obj.(object.Confidential); ok {
				rec.Values = secret.Values()
			}
			if err := putRecord(tx, key, rec); err != nil {
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

// Begin counts that objects are being started.
func (s *Store) Begin(keys ...object.Key) error {
	return s.change(keys, func(rec *storedRecord) { rec.Starts++ })
}

// Began forgets that objects were being started: the daemon has survived it.
func (s *Store) Began(keys ...object.Key) error {
	return s.change(keys, func(rec *storedRecord) { rec.Starts = 0 })
}

// MarkDeleting notes that an object is to be removed.
func (s *Store) MarkDeleting(key object.Key) error {
	return s.change([]object.Key{key}, func(rec *storedRecord) { rec.Deleting = true })
}

// MarkStopped notes that an object is stopped, or as being started again.
func (s *Store) MarkStopped(key object.Key, stopped bool) error {
	return s.change([]object.Key{key}, func(rec *storedRecord) {
		rec.Stopped = stopped
		if !stopped {
			rec.Starts = 1
		}
	})
}

// Delete forgets an object; one that is not there is forgotten already.
func (s *Store) Delete(key object.Key) error {
	err := s.db.Update(func(tx *bbolt.Tx) error {
		return tx.Bucket([]byte(key.Kind)).Delete([]byte(key.Name))
	})
	if err != nil {
		return fmt.Errorf("forget %s in the store: %w", key, err)
	}
	return nil
}

// SetPlacements is part of allocate.Store.
func (s *Store) SetPlacements(placed []allocate.Placed) error {
	return s.db.Update(func(tx *bbolt.Tx) error {
		for _, p := range placed {
			key, instance := p.Object.Key().Instance()
			raw, err := json.Marshal(p.Placement)
			if err != nil {
				return fmt.Errorf("encode the placement of %s: %w", key, err)
			}
			rec, err := getRecord(tx, key)
			if err != nil {
				return err
			}
			rec.place(instance, raw)
			if err := putRecord(tx, key, rec); err != nil {
				return err
			}
		}
		return nil
	})
}

// ForgetPlacement is part of allocate.Store.
func (s *Store) ForgetPlacement(obj object.Object) error {
	key, instance := obj.Key().Instance()
	placed := false
	err := s.db.View(func(tx *bbolt.Tx) error {
		rec, err := getRecord(tx, key)
		placed = err == nil && !isNull(rec.placed(instance)) // else there is nothing to edit
		return nil
	})
	if err != nil || !placed {
		return err
	}
	return s.change([]object.Key{key}, func(rec *storedRecord) { rec.place(instance, nil) })
}

// place notes where an instance is placed, nil for nowhere.
func (r *storedRecord) place(instance int, placement json.RawMessage) {
	if instance == 0 {
		r.Placement = placement
		return
	}
	for len(r.Instances) < instance {
		r.Instances = append(r.Instances, nil)
	}
	r.Instances[instance-1] = placement
	for n := len(r.Instances); n > 0 && isNull(r.Instances[n-1]); n-- {
		r.Instances = r.Instances[:n-1]
	}
}

// placed is where an instance is placed, nil for nowhere.
func (r *storedRecord) placed(instance int) json.RawMessage {
	switch {
	case instance == 0:
		return r.Placement
	case instance <= len(r.Instances):
		return r.Instances[instance-1]
	}
	return nil
}

// isNull reports whether there is no JSON value, or null: what was nil comes back so.
func isNull(raw json.RawMessage) bool { return len(raw) == 0 || string(raw) == "null" }

// change edits records that can be read; others have nothing to edit.
func (s *Store) change(keys []object.Key, edit func(*storedRecord)) error {
	err := s.db.Batch(func(tx *bbolt.Tx) error {
		for _, key := range keys {
			rec, err := getRecord(tx, key)
			if err != nil {
				continue // deleted meanwhile, or unreadable
			}
			edit(&rec)
			if err := putRecord(tx, key, rec); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("write the store: %w", err)
	}
	return nil
}

func getRecord(tx *bbolt.Tx, key object.Key) (rec storedRecord, err error) {
	raw := tx.Bucket([]byte(key.Kind)).Get([]byte(key.Name))
	if raw == nil {
		return rec, fmt.Errorf("%s: %w", key, ErrNotFound)
	}
	if err := json.Unmarshal(raw, &rec); err != nil {
		return rec, fmt.Errorf("stored %s: %w", key, err)
	}
	return rec, nil
}

func putRecord(tx *bbolt.Tx, key object.Key, rec storedRecord) error {
	raw, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	return tx.Bucket([]byte(key.Kind)).Put([]byte(key.Name), raw)
}
