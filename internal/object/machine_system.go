package object

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// Bounds of a Machine's lists.
const (
	maxSysctls     = 64
	maxSysctlBytes = 256
	maxRoutes      = 64
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

// sysctlRE leaves out what is no path below /proc/sys.
var sysctlRE = regexp.MustCompile(`^(kernel|net|vm|fs|user|dev)(\.[A-Za-z0-9_-]+)+$`)

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
