package object

import (
	"strings"
	"testing"

	"oscine.dev/oscine/internal/pki"
)

// TestMachineSystem reads what a Machine says of the kernel, proxies, authorities and routes.
func TestMachineSystem(t *testing.T) {
	authority, err := pki.NewAuthority("test")
	if err != nil {
		t.Fatal(err)
	}
	ca := strings.ReplaceAll(strings.TrimSpace(string(authority.Certificate)), "\n", "\n      ")
	head := "apiVersion: oscine.dev/v1\nkind: Machine\nmetadata: {name: n1}\nspec:\n  api:\n    joinToken: AAAABBBBCCCCDDDDEEEEFFFF22\n    ca: |\n      " + ca + "\n"
	good := head + `  sysctls: {net.core.rmem_max: "16777216", net.ipv4.conf.eth0.rp_filter: "0"}
  proxy: {https: "http://proxy.example.com:3128", noProxy: 10.0.0.0/8}
  caCertificates: |
      ` + ca + `
  network:
    interfaces:
      - {name: eth0, dhcp: true, routes: [{to: 10.1.0.0/16, via: 192.0.2.1}]}
`
	m, err := ParseMachine(strings.NewReader(good))
	if err != nil {
		t.Fatal(err)
	}
	if m.Spec.Sysctls["net.core.rmem_max"] != "16777216" || m.Spec.Proxy.HTTPS == "" || m.Spec.Network.Interfaces[0].Routes[0].Via != "192.0.2.1" {
		t.Errorf("got %+v", m.Spec)
	}
	for spec, want := range map[string]string{
		`  sysctls: {../etc/passwd: "1"}`:     "is not the name of a kernel parameter",
		`  sysctls: {net/core/rmem_max: "1"}`: "is not the name of a kernel parameter",
		`  sysctls: {net..core: "1"}`:         "is not the name of a kernel parameter",
		`  sysctls: {vm.swappiness: "1\n2"}`:  "must be one line",
		`  proxy: {noProxy: a}`:               "needs http or https",
		`  proxy: {http: "proxy:3128"}`:       "must be the URL of a proxy",
		`  caCertificates: none`:              "must be certificates in PEM",
		`  network: {interfaces: [{name: e, dhcp: true, routes: [{to: 10.0.0.1/8, via: 192.0.2.1}]}]}`: "must be an IPv4 network",
		`  network: {interfaces: [{name: e, dhcp: true, routes: [{to: 0.0.0.0/0, via: 192.0.2.1}]}]}`:  "must be an IPv4 network",
		`  network: {interfaces: [{name: e, dhcp: true, routes: [{to: 10.0.0.0/8, via: "::1"}]}]}`:     "must be the IPv4 address of a gateway",
	} {
		if _, err := ParseMachine(strings.NewReader(head + spec + "\n")); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", spec, err, want)
		}
	}
}
