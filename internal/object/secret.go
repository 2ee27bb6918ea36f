package object

import (
	"encoding/base64"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"

	"oscine.dev/oscine/internal/pattern"
)

// KindSecret is the kind of Secret.
const KindSecret Kind = "Secret"

// Bounds of a Secret.
const (
	maxEntries     = 64
	maxSecretBytes = 256 << 10 // of all values
	maxServer      = 255       // bytes of a registry's name
	maxUsername    = 255
)

// PasswordEntry is the entry of a Secret that holds its registry's password.
const PasswordEntry = "password"

func secretKind() Definition {
	return Definition{
		Kind: KindSecret, Passive: true, Confidential: true,
		New:       func() Object { return &Secret{} },
		NewStatus: func() Status { return &SecretStatus{} },
		Columns: []Column{
			column("TYPE", func(st *SecretStatus) string { return st.Type }),
			column("ENTRIES", func(st *SecretStatus) string { return strconv.Itoa(st.Entries) }),
			column("BYTES", func(st *SecretStatus) string { return strconv.FormatInt(st.Bytes, 10) }),
		},
	}
}

// Secret holds named values that workloads receive and nobody can read back. Its JSON has
// the names and sizes of the values, not the values themselves.
type Secret struct {
	Header
	Spec SecretSpec `json:"spec"`

	// By reference, so that printing a Secret in a message prints an address.
	values *secretValues
}

type secretValues struct {
	of    map[string][]byte
	twice []string // entries that were given in two ways
}

// SecretSpec holds the values as they are written; the node shows Kept instead.
type SecretSpec struct {
	StringData map[string]string `json:"stringData,omitempty"` // values as text
	Data       map[string]Base64 `json:"data,omitempty"`       // values in base64
	// Kept lists the values that the node already has, with their sizes in bytes. The
	// node shows it in place of the values; applying it leaves them unchanged.
	Kept     map[string]int64     `json:"kept,omitempty"`
	Registry *RegistryCredentials `json:"registry,omitempty"` // for pulling images, packs and models
}

// RegistryCredentials are used for everything that is pulled from one registry.
type RegistryCredentials struct {
	Server   string `json:"server"`             // host[:port] as in image references; docker.io for Docker Hub
	Username string `json:"username"`           // as the registry knows it
	Password string `json:"password,omitempty"` // never shown; the entry "password"
}

// SecretStatus is the observed state of a Secret.
type SecretStatus struct {
	Observed
	Type    string `json:"type"` // opaque or registry
	Entries int    `json:"entries"`
	Bytes   int64  `json:"bytes"` // of all values
}

// Base64 is bytes that are written in base64 (RFC 4648, section 4).
type Base64 []byte

// UnmarshalText implements encoding.TextUnmarshaler. Its error does not repeat
// the text, which may be secret.
func (b *Base64) UnmarshalText(text []byte) error {
	decoded, err := base64.StdEncoding.DecodeString(string(text))
	if err != nil {
		return errors.New("is not base64; write text in stringData")
	}
	*b = decoded
	return nil
}

// MarshalText implements encoding.TextMarshaler.
func (b Base64) MarshalText() ([]byte, error) {
	return []byte(base64.StdEncoding.EncodeToString(b)), nil
}

// Confidential is an object with values that its JSON leaves out. They are
// stored beside it.
type Confidential interface {
	Object
	// Values returns the values by their names. They must not be changed.
	Values() map[string][]byte
	// Keep takes values that the object names but does not bring from those
	// that are there, and returns the names of those that are missing.
	Keep(there map[string][]byte) (missing []string)
}

// Values implements Confidential.
func (s *Secret) Values() map[string][]byte {
	if s.values == nil {
		return nil
	}
	return s.values.of
}

// Keep implements Confidential.
func (s *Secret) Keep(there map[string][]byte) (missing []string) {
	if s.values == nil {
		s.values = &secretValues{of: map[string][]byte{}}
	}
	for _, name := range slices.Sorted(maps.Keys(s.Spec.Kept)) {
		if _, ok := s.values.of[name]; ok {
			continue
		}
		value, ok := there[name]
		if !ok {
			missing = append(missing, name)
			continue
		}
		s.values.of[name] = value
		s.Spec.Kept[name] = int64(len(value))
	}
	return missing
}

// SetDefaults implements Object: it takes the values out of what is shown.
func (s *Secret) SetDefaults() {
	s.values = &secretValues{of: map[string][]byte{}}
	take := func(name string, value []byte) {
		if _, ok := s.values.of[name]; ok {
			s.values.twice = append(s.values.twice, name)
		}
		s.values.of[name] = value
	}
	for name, text := range s.Spec.StringData {
		take(name, []byte(text))
	}
	for name, value := range s.Spec.Data {
		take(name, value)
	}
	if r := s.Spec.Registry; r != nil && r.Password != "" {
		take(PasswordEntry, []byte(r.Password))
		r.Password = ""
	}
	s.Spec.StringData, s.Spec.Data = nil, nil
	kept := maps.Clone(s.Spec.Kept)
	if kept == nil {
		kept = map[string]int64{}
	}
	for name, value := range s.values.of {
		kept[name] = int64(len(value))
	}
	s.Spec.Kept = kept
}

// An entry may be the name of a file, and of a variable.
var entryRE = pattern.New(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$`)

var serverRE = pattern.New(`^[a-zA-Z0-9]([a-zA-Z0-9.-]*[a-zA-Z0-9])?(:[0-9]{1,5})?$`)

// Check implements Object. What it reports repeats no value.
func (s *Secret) Check(c *Checker) {
	given, total := map[string]bool{}, int64(0)
	entry := func(at, name string, size int) {
		if !entryRE.MatchString(name) {
			c.Bad(at, "the name of an entry must be at most 128 letters, digits, '.', '_' or '-', and must not begin with '.' or '-'")
		}
		given[name] = true
		total += int64(size)
	}
	// After SetDefaults only Kept is left; before it, the text had mistakes.
	for _, name := range slices.Sorted(maps.Keys(s.Spec.StringData)) {
		entry("spec.stringData."+name, name, len(s.Spec.StringData[name]))
	}
	for _, name := range slices.Sorted(maps.Keys(s.Spec.Data)) {
		entry("spec.data."+name, name, len(s.Spec.Data[name]))
	}
	for _, name := range slices.Sorted(maps.Keys(s.Spec.Kept)) {
		if !given[name] {
			entry("spec.kept."+name, name, len(s.Values()[name]))
		}
	}
	if s.values != nil {
		for _, name := range s.values.twice {
			c.Bad("spec", "the entry %q is given twice: in stringData, data or registry.password", name)
		}
	}
	if r := s.Spec.Registry; r != nil {
		if len(r.Server) > maxServer || !serverRE.MatchString(r.Server) {
			c.Bad("spec.registry.server", "must be the host of a registry, with :port where it has one, such as ghcr.io")
		}
		if r.Username == "" || len(r.Username) > maxUsername || strings.ContainsAny(r.Username, ":\n\r\x00") {
			c.Bad("spec.registry.username", "is required, of at most %d bytes and without a colon", maxUsername)
		}
		if !given[PasswordEntry] && r.Password == "" {
			c.Bad("spec.registry.password", "is required")
		}
	}
	if len(given) == 0 && s.Spec.Registry == nil {
		c.Bad("spec.stringData", "is required: a Secret has at least one entry, as text here or in base64 in spec.data")
	}
	if len(given) > maxEntries {
		c.Bad("spec", "has %d entries, at most %d are accepted", len(given), maxEntries)
	}
	if total > maxSecretBytes {
		c.Bad("spec", "has %d bytes of values, at most %d are accepted", total, maxSecretBytes)
	}
}

// Type is what the Secret is for: opaque or registry.
func (s *Secret) Type() string {
	if s.Spec.Registry != nil {
		return "registry"
	}
	return "opaque"
}
