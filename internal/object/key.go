package object

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	"oscine.dev/oscine/internal/pattern"
)

// Kind names an object type: a capital letter and at most eleven more letters,
// so that every ID fits what it names (see Key.ID).
type Kind string

// maxKind bounds a kind's name.
const maxKind = 12

var kindRE = pattern.New(`^[A-Z][A-Za-z]{0,11}$`)

// Key names one object of a node.
type Key struct {
	Kind Kind
	Name string
}

// String returns "Kind/name", as messages write a key.
// Table.ParseKey is its inverse.
func (k Key) String() string { return string(k.Kind) + "/" + k.Name }

// ID returns "kind-name", the identifier from which everything that belongs to
// the object on its node has its name: container, cgroup, network namespace,
// placement and journal. Table.ParseID is its inverse.
//
// It has at most MaxID characters.
func (k Key) ID() string { return strings.ToLower(string(k.Kind)) + "-" + k.Name }

// Short returns 16 hexadecimal digits that stand for the key where a path must
// stay short, as that of a socket: 108 bytes with all folders above it.
func (k Key) Short() string {
	sum := sha256.Sum256([]byte(k.String()))
	return hex.EncodeToString(sum[:8])
}

// MaxName and MaxID bound a name and an identifier. The tightest uses of them:
// a host name has at most 64 bytes (MAXHOSTNAMELEN), a container's identifier
// in containerd 76.
const (
	MaxName = 63
	MaxID   = maxKind + 1 + MaxName
)

var nameRE = pattern.New(`^[a-z0-9]+(-[a-z0-9]+)*$`)

func validName(s string) bool { return len(s) <= MaxName && nameRE.MatchString(s) }

// CheckName refuses what is not a DNS label (RFC 1123) in lower case, or has
// two hyphens in a row, which containerd takes in no identifier.
func CheckName(name string) error {
	if !validName(name) {
		return fmt.Errorf("must be 1 to %d lower-case letters and digits with single hyphens between them, got %s", MaxName, quote(name))
	}
	return nil
}

// reference is the key that the text of a near or apart names: "Kind/name", or
// "name" for a workload.
func reference(text string) Key {
	if kind, name, ok := strings.Cut(text, "/"); ok {
		return Key{Kind(kind), name}
	}
	return Key{KindWorkload, text}
}
