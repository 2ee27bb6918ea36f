package repository

import (
	"fmt"
	"regexp"
	"slices"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"oscine.dev/oscine/internal/update/keys"
)

// Rotation changes the keys of a role.
type Rotation struct {
	Role      string
	Add       []*keys.Key
	Remove    []string // identifiers, or the first 8 digits of them
	Threshold int      // how many must sign; 0 keeps it
}

// Rotate changes the keys of a role. Another version of root, signed by the old
// root keys and the new ones, tells nodes; for a delegated role it is one of
// targets.
func (r *Repository) Rotate(rotation Rotation) (*Result, error) {
	return r.change(func(s *state) error {
		if slices.Contains(metadata.TOP_LEVEL_ROLE_NAMES[:], rotation.Role) {
			return r.rotateTop(s, rotation)
		}
		return r.rotateDelegated(s, rotation)
	})
}

func (r *Repository) rotateTop(s *state, rotation Rotation) error {
	role := s.root.Signed.Roles[rotation.Role]
	for _, k := range rotation.Add {
		if err := s.root.Signed.AddKey(k.Public, rotation.Role); err != nil {
			return err
		}
	}
	for _, prefix := range rotation.Remove {
		id, err := findKey(role.KeyIDs, prefix)
		if err != nil {
			return fmt.Errorf("role %s: %w", rotation.Role, err)
		}
		if err := s.root.Signed.RevokeKey(id, rotation.Role); err != nil {
			return err
		}
	}
	if err := setThreshold(&role.Threshold, rotation, len(role.KeyIDs)); err != nil {
		return err
	}
	r.touchRoot(s)
	if rotation.Role == metadata.TARGETS {
		r.touchTargets(s, metadata.TARGETS) // signed by the new keys
	}
	return nil
}

func (r *Repository) rotateDelegated(s *state, rotation Rotation) error {
	top := s.targets[metadata.TARGETS]
	if s.targets[rotation.Role] == nil || top.Signed.Delegations == nil {
		return fmt.Errorf("there is no role %q", rotation.Role)
	}
	for _, k := range rotation.Add {
		if err := top.Signed.AddKey(k.Public, rotation.Role); err != nil {
			return err
		}
	}
	for i := range top.Signed.Delegations.Roles {
		role := &top.Signed.Delegations.Roles[i]
		if role.Name != rotation.Role {
			continue
		}
		for _, prefix := range rotation.Remove {
			id, err := findKey(role.KeyIDs, prefix)
			if err != nil {
				return fmt.Errorf("role %s: %w", rotation.Role, err)
			}
			if err := top.Signed.RevokeKey(id, rotation.Role); err != nil {
				return err
			}
		}
		if err := setThreshold(&role.Threshold, rotation, len(role.KeyIDs)); err != nil {
			return err
		}
	}
	r.touchTargets(s, metadata.TARGETS)
	r.touchTargets(s, rotation.Role)
	return nil
}

func setThreshold(threshold *int, rotation Rotation, count int) error {
	if rotation.Threshold != 0 {
		*threshold = rotation.Threshold
	}
	if *threshold < 1 || count < *threshold {
		return fmt.Errorf("role %s: %d of %d keys cannot sign: add keys or lower the threshold", rotation.Role, *threshold, count)
	}
	return nil
}

func findKey(ids []string, prefix string) (string, error) {
	if len(prefix) < 8 {
		return "", fmt.Errorf("key %q: give at least 8 digits of its identifier", prefix)
	}
	for _, id := range ids {
		if len(prefix) <= len(id) && id[:len(prefix)] == prefix {
			return id, nil
		}
	}
	return "", fmt.Errorf("no key begins with %s; they are %v", prefix, ids)
}

// roleRule keeps names of roles usable as names of files.
var roleRule = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,31}$`)

// delegate lets other keys sign some paths: patterns in which * stands for a
// name without a slash.
func (r *Repository) delegate(s *state, name string, paths []string, have []*keys.Key, threshold int) error {
	if !roleRule.MatchString(name) || slices.Contains(metadata.TOP_LEVEL_ROLE_NAMES[:], name) {
		return fmt.Errorf("role %q: use lower-case letters, digits and hyphens, and none of root, targets, snapshot, timestamp", name)
	}
	if s.targets[name] != nil {
		return fmt.Errorf("role %s is there: change its keys with oscine release keys rotate: %w", name, ErrThere)
	}
	if len(paths) == 0 || threshold < 1 || len(have) < threshold {
		return fmt.Errorf("role %s: it needs a path and as many keys as must sign, and has %d paths and %d keys for %d signatures", name, len(paths), len(have), threshold)
	}
	top := s.targets[metadata.TARGETS]
	if top.Signed.Delegations == nil {
		top.Signed.Delegations = &metadata.Delegations{Keys: map[string]*metadata.Key{}}
	}
	role := metadata.DelegatedRole{Name: name, Threshold: threshold, Paths: paths}
	for _, k := range have {
		top.Signed.Delegations.Keys[k.ID] = k.Public
		role.KeyIDs = append(role.KeyIDs, k.ID)
	}
	top.Signed.Delegations.Roles = append(top.Signed.Delegations.Roles, role)
	s.targets[name] = metadata.Targets()
	r.touchTargets(s, metadata.TARGETS)
	r.touchTargets(s, name)
	return nil
}
