package object

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
)

// SecretMount shows a Secret's entries as files: one for each, named as the
// entry, readable by the workload's user and nobody else.
type SecretMount struct {
	Name string `json:"name"` // of the Secret
	Path string `json:"path"` // of the folder, absolute, in the container
}

// SecretRef is an entry of a Secret, written SECRET/ENTRY.
type SecretRef struct{ Secret, Entry string }

// ParseSecretRef reads SECRET/ENTRY.
func ParseSecretRef(text string) (SecretRef, error) {
	secret, entry, _ := strings.Cut(text, "/")
	if !validName(secret) || !entryRE.MatchString(entry) {
		return SecretRef{}, fmt.Errorf("must be SECRET/ENTRY, such as db/password")
	}
	return SecretRef{secret, entry}, nil
}

// SecretNames are the Secrets that a workload uses, in order.
func (w *Workload) SecretNames() []string {
	names := map[string]bool{}
	for _, text := range w.Spec.SecretEnv {
		if ref, err := ParseSecretRef(text); err == nil {
			names[ref.Secret] = true
		}
	}
	for _, m := range w.Spec.Secrets {
		names[m.Name] = true
	}
	return slices.Sorted(maps.Keys(names))
}

// Bounds of what a workload takes of Secrets.
const (
	maxSecretEnv    = 64
	maxSecretMounts = 16
)

func checkSecrets(c *Checker, s *WorkloadSpec) {
	if len(s.SecretEnv) > maxSecretEnv {
		c.Bad("spec.secretEnv", "has %d entries, at most %d are accepted", len(s.SecretEnv), maxSecretEnv)
	}
	for _, name := range slices.Sorted(maps.Keys(s.SecretEnv)) {
		at := "spec.secretEnv." + name
		if !envRE.MatchString(name) {
			c.Bad(at, "is not a name for an environment variable")
		}
		if _, ok := s.Env[name]; ok {
			c.Bad(at, "is in spec.env too")
		}
		// A value in the place of the reference is a mistake that must not be repeated.
		if _, err := ParseSecretRef(s.SecretEnv[name]); err != nil {
			c.Bad(at, "%v", err)
		}
	}
	if len(s.Secrets) > maxSecretMounts {
		c.Bad("spec.secrets", "has %d entries, at most %d are accepted", len(s.Secrets), maxSecretMounts)
	}
	taken := map[string]bool{}
	for _, v := range s.Volumes {
		taken[path.Clean(v.Path)] = true
	}
	for i, m := range s.Secrets {
		at := fmt.Sprintf("spec.secrets[%d]", i)
		if err := CheckName(m.Name); err != nil {
			c.Bad(at+".name", "%v", err)
		}
		clean := path.Clean(m.Path)
		if !path.IsAbs(m.Path) || clean == "/" {
			c.Bad(at+".path", "must be an absolute path other than /, got %q", m.Path)
		}
		if taken[clean] {
			c.Bad(at+".path", "%q is mounted twice", m.Path)
		}
		taken[clean] = true
	}
}
