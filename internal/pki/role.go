package pki

import (
	"crypto/x509"
	"fmt"
	"strings"
)

// Role is what a client may do; each includes the ones before it.
type Role int

// The roles.
const (
	Reader   Role = iota + 1 // see everything but secrets
	Operator                 // change workloads, models and images
	Admin                    // change the machine: configuration, packs, reboot
)

var roleNames = map[Role]string{Reader: "reader", Operator: "operator", Admin: "admin"}

// String returns the role's name.
func (r Role) String() string { return roleNames[r] }

func (r Role) organization() string { return "oscine:" + r.String() }

// ParseRole returns the role of that name.
func ParseRole(name string) (Role, error) {
	for role, n := range roleNames {
		if n == name {
			return role, nil
		}
	}
	return 0, fmt.Errorf("unknown role %q: use reader, operator or admin", name)
}

// RoleOf returns the highest role that a verified client certificate grants,
// 0 where it grants none.
func RoleOf(cert *x509.Certificate) Role {
	var best Role
	for _, o := range cert.Subject.Organization {
		name, ok := strings.CutPrefix(o, "oscine:")
		if !ok {
			continue
		}
		if role, err := ParseRole(name); err == nil {
			best = max(best, role)
		}
	}
	return best
}
