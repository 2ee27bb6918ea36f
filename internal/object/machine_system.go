package object

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"oscine.dev/oscine/internal/pattern"
)

// Bounds of a Machine's lists.
const (
	maxSysctls     = 64
	maxSysctlBytes = 256
	maxRoutes      = 64
	maxModules     = 64
	maxMirrors     = 64
)

// Route is a way to an IPv4 network by a gateway.
type Route struct {
	To  string `json:"to"`  // the network in CIDR, such as 10.0.0.0/8
	Via string `json:"via"` // address of the gateway
}

// MachineProxy is the proxies through which the node itself reaches registries, releases and models; workloads do
// not get them.
type MachineProxy struct {
	HTTP    string `json:"http,omitempty"`    // for http:// URLs, such as http://proxy.example.com:3128
	HTTPS   string `json:"https,omitempty"`   // for https:// URLs
	NoProxy string `json:"noProxy,omitempty"` // comma-separated hosts, domains and networks that are reached directly
}

// KernelModule is a module of the kernel on the image.
type KernelModule struct {
	Name       string            `json:"name"`                 // such as nbd
	Parameters map[string]string `json:"parameters,omitempty"` // by name; of a module that is loaded already, only those that can be changed then
}

// RegistryMirror names servers that hold the images of a registry too.
type RegistryMirror struct {
	Registry  string   `json:"registry"`  // such as docker.io, or * for all that have no entry
	Endpoints []string `json:"endpoints"` // URLs, asked in this order, such as https://mirror.example.com
	// SkipFallback asks the endpoints alone, and never the registry itself.
	SkipFallback bool `json:"skipFallback,omitempty"`
}

// sysctlRE leaves out what is no path below /proc/sys.
var sysctlRE = pattern.New(`^(kernel|net|vm|fs|user|dev)(\.[A-Za-z0-9_-]+)+$`)

func checkSysctls(c *Checker, at string, sysctls map[string]string) {
	if len(sysctls) > maxSysctls {
		c.Bad(at, "has %d entries, at most %d are accepted", len(sysctls), maxSysctls)
	}
	for _, name := range slices.Sorted(maps.Keys(sysctls)) {
		if !sysctlRE.MatchString(name) {
			c.Bad(at, "%.60q is not the name of a kernel parameter, such as net.core.rmem_max", name)
		}
		if value := sysctls[name]; value == "" || len(value) > maxSysctlBytes || strings.ContainsAny(value, "\n\x00") {
			c.Bad(at+"."+name, "must be one line of at most %d bytes", maxSysctlBytes)
		}
	}
}

var (
	moduleRE    = pattern.New(`^[A-Za-z0-9][A-Za-z0-9_-]{0,54}$`) // MODULE_NAME_LEN
	parameterRE = pattern.New(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$`)
	registryRE  = pattern.New(`^([A-Za-z0-9][A-Za-z0-9.-]*|\[[0-9A-Fa-f:]+\])(:[0-9]{1,5})?$`)
)

func checkKernelModules(c *Checker, at string, modules []KernelModule) {
	if len(modules) > maxModules {
		c.Bad(at, "has %d entries, at most %d are accepted", len(modules), maxModules)
		return
	}
	seen := map[string]bool{}
	for i, m := range modules {
		at := fmt.Sprintf("%s[%d]", at, i)
		name := strings.ReplaceAll(m.Name, "-", "_")
		if !moduleRE.MatchString(m.Name) {
			c.Bad(at+".name", "must be the name of a module of the kernel, such as nbd, got %.60q", m.Name)
		} else if seen[name] {
			c.Bad(at+".name", "%s is listed twice", m.Name)
		}
		seen[name] = true
		for _, p := range slices.Sorted(maps.Keys(m.Parameters)) {
			if value := m.Parameters[p]; !parameterRE.MatchString(p) || len(value) > maxSysctlBytes || strings.ContainsAny(value, " \t\n\"\x00") {
				c.Bad(at+".parameters", "%.60q must be a parameter's name, with a value of at most %d bytes without spaces and quotes", p, maxSysctlBytes)
			}
		}
	}
}

func checkMirrors(c *Checker, at string, mirrors []RegistryMirror) {
	if len(mirrors) > maxMirrors {
		c.Bad(at, "has %d entries, at most %d are accepted", len(mirrors), maxMirrors)
		return
	}
	seen := map[string]bool{}
	for i, m := range mirrors {
		at := fmt.Sprintf("%s[%d]", at, i)
		if m.Registry != "*" && !registryRE.MatchString(m.Registry) {
			c.Bad(at+".registry", "must be the host of a registry, such as docker.io, or * for all others, got %q", m.Registry)
		}
		if seen[m.Registry] {
			c.Bad(at+".registry", "%s is listed twice", m.Registry)
		}
		seen[m.Registry] = true
		if len(m.Endpoints) == 0 || len(m.Endpoints) > 8 {
			c.Bad(at+".endpoints", "needs 1 to 8 URLs, got %d", len(m.Endpoints))
		}
		for j, text := range m.Endpoints {
			if u, err := url.Parse(text); err != nil || u.Host == "" || u.User != nil || u.String() != text || u.RawQuery != "" || u.Fragment != "" || u.Scheme != "http" && u.Scheme != "https" {
				c.Bad(fmt.Sprintf("%s.endpoints[%d]", at, j), "must be the URL of a registry, such as https://mirror.example.com, got %q", text)
			}
		}
	}
}

func (p *MachineProxy) check(c *Checker, at string) {
	if p == nil {
		return
	}
	for name, text := range map[string]string{"http": p.HTTP, "https": p.HTTPS} {
		u, err := url.Parse(text)
		if text != "" && (err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https") {
			c.Bad(at+"."+name, "must be the URL of a proxy, such as http://proxy.example.com:3128")
		}
	}
	if p.HTTP == "" && p.HTTPS == "" {
		c.Bad(at, "needs http or https")
	}
}

// checkCertificates holds that text is certificates in PEM and nothing else.
func checkCertificates(c *Checker, at, text string) {
	for rest := []byte(strings.TrimSpace(text)); len(rest) > 0; {
		block, after := pem.Decode(rest)
		if block == nil || block.Type != "CERTIFICATE" {
			c.Bad(at, "must be certificates in PEM and nothing else")
			return
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			c.Bad(at, "holds a certificate that cannot be read: %v", err)
			return
		}
		rest = []byte(strings.TrimSpace(string(after)))
	}
}

func checkRoutes(c *Checker, at string, routes []Route) {
	if len(routes) > maxRoutes {
		c.Bad(at, "has %d entries, at most %d are accepted", len(routes), maxRoutes)
		return
	}
	for i, r := range routes {
		to, err := netip.ParsePrefix(r.To)
		if err != nil || !to.Addr().Is4() || to != to.Masked() || to.Bits() == 0 {
			c.Bad(fmt.Sprintf("%s[%d].to", at, i), "must be an IPv4 network, such as 10.0.0.0/8 (gateway is for all others), got %q", r.To)
		}
		if via, err := netip.ParseAddr(r.Via); err != nil || !via.Is4() {
			c.Bad(fmt.Sprintf("%s[%d].via", at, i), "must be the IPv4 address of a gateway, got %q", r.Via)
		}
	}
}
