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
  tracing: {endpoint: "http://192.0.2.9:4318", percent: 0}
  caCertificates: |
      ` + ca + `
  network:
    interfaces:
      - {name: eth0, dhcp: true, routes: [{to: 10.1.0.0/16, via: 192.0.2.1}]}
      - {name: bond0, bond: {interfaces: [eth1, eth2], mode: 802.3ad, lacpRate: fast}}
      - {name: data, vlan: {link: bond0, id: 20}, addresses: [198.51.100.1/24]}
  images: {mirrors: [{registry: docker.io, endpoints: ["https://mirror.example.com/hub"]}, {registry: "*", endpoints: ["http://192.0.2.9:5000"], skipFallback: true}]}
  kernelModules: [{name: nbd, parameters: {nbds_max: "4"}}]
  storage: {encryption: tpm}
`
	m, err := ParseMachine(strings.NewReader(good))
	if err != nil {
		t.Fatal(err)
	}
	if m.Spec.Sysctls["net.core.rmem_max"] != "16777216" || m.Spec.Proxy.HTTPS == "" || m.Spec.Storage.Encryption != EncryptionTPM || m.Spec.Tracing.Percent == nil || m.Spec.Network.Interfaces[0].Routes[0].Via != "192.0.2.1" {
		t.Errorf("got %+v", m.Spec)
	}
	for spec, want := range map[string]string{
		`  sysctls: {../etc/passwd: "1"}`:                                                                                         "is not the name of a kernel parameter",
		`  sysctls: {net/core/rmem_max: "1"}`:                                                                                     "is not the name of a kernel parameter",
		`  sysctls: {net..core: "1"}`:                                                                                             "is not the name of a kernel parameter",
		`  sysctls: {vm.swappiness: "1\n2"}`:                                                                                      "must be one line",
		`  proxy: {noProxy: a}`:                                                                                                   "needs http or https",
		`  proxy: {http: "proxy:3128"}`:                                                                                           "must be the URL of a proxy",
		`  storage: {encryption: luks}`:                                                                                           "must be one of tpm",
		`  caCertificates: none`:                                                                                                  "must be certificates in PEM",
		`  kernelModules: [{name: ../nbd}]`:                                                                                       "must be the name of a module",
		`  kernelModules: [{name: nf-log}, {name: nf_log}]`:                                                                       "is listed twice",
		`  kernelModules: [{name: nbd, parameters: {a: "1 rdinit"}}]`:                                                             "without spaces",
		`  images: {mirrors: [{registry: docker.io}]}`:                                                                            "needs 1 to 8 URLs",
		`  images: {mirrors: [{registry: ../x, endpoints: ["https://a"]}]}`:                                                       "must be the host of a registry",
		`  images: {mirrors: [{registry: a, endpoints: ["mirror.example.com"]}]}`:                                                 "must be the URL of a registry",
		`  images: {mirrors: [{registry: a, endpoints: ["https://u:p@a"]}]}`:                                                      "must be the URL of a registry",
		`  network: {interfaces: [{name: e.20, vlan: {link: e, id: 4095}, dhcp: true}]}`:                                          "must be from 1 to 4094",
		`  network: {interfaces: [{name: e.20, vlan: {link: "", id: 1}, dhcp: true}]}`:                                            "must be the name of an interface",
		`  network: {interfaces: [{name: a/b, vlan: {link: e, id: 1}, dhcp: true}]}`:                                              "must be the name of an interface",
		`  network: {interfaces: [{name: sixteen-letters-, vlan: {link: e, id: 1}, dhcp: true}]}`:                                 "at most 15 bytes",
		`  network: {interfaces: [{name: e.20, vlan: {link: e, id: 1}}]}`:                                                         "either dhcp: true or addresses",
		`  network: {interfaces: [{mac: "52:54:00:12:34:56", vlan: {link: e, id: 1}, dhcp: true}]}`:                               "give a name",
		`  network: {interfaces: [{name: a, vlan: {link: e, id: 1}, dhcp: true}, {name: b, vlan: {link: a, id: 1}, dhcp: true}]}`: "is a VLAN",
		`  network: {interfaces: [{name: b, bond: {interfaces: []}}]}`:                                                            "needs 1 to 32 names",
		`  network: {interfaces: [{name: b, bond: {interfaces: [e, e]}}]}`:                                                        "is a device of b already",
		`  network: {interfaces: [{name: b, bond: {interfaces: [e], mode: 4}}]}`:                                                  "mode",
		`  network: {interfaces: [{name: b, bond: {interfaces: [e], lacpRate: fast}}]}`:                                           "needs mode: 802.3ad",
		`  network: {interfaces: [{name: b, bond: {interfaces: [e]}}, {name: e, dhcp: true}]}`:                                    "is interfaces[1] already",
		`  network: {interfaces: [{name: b, bond: {interfaces: [e]}}, {name: v, vlan: {link: e, id: 1}, dhcp: true}]}`:            "put the VLAN on the bond",
		`  network: {interfaces: [{name: b, bond: {interfaces: [e]}, vlan: {link: e, id: 1}}]}`:                                   "cannot be both",
		`  network: {interfaces: [{name: e, dhcp: true}, {name: e, dhcp: true}]}`:                                                 "is interfaces[0] already",
		`  network: {interfaces: [{name: e, dhcp: true, routes: [{to: 10.0.0.1/8, via: 192.0.2.1}]}]}`:                            "must be an IPv4 network",
		`  network: {interfaces: [{name: e, dhcp: true, routes: [{to: 0.0.0.0/0, via: 192.0.2.1}]}]}`:                             "must be an IPv4 network",
		`  network: {interfaces: [{name: e, dhcp: true, routes: [{to: 10.0.0.0/8, via: "::1"}]}]}`:                                "must be the IPv4 address of a gateway",
		`  tracing: {percent: 5}`:                                                                                                 "spec.tracing.endpoint",
		`  tracing: {endpoint: "192.0.2.9:4318"}`:                                                                                 "must be an address such as http://192.0.2.9:4318",
		`  tracing: {endpoint: "http://192.0.2.9:4318", percent: 101}`:                                                            "must be from 0 to 100",
	} {
		if _, err := ParseMachine(strings.NewReader(head + spec + "\n")); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", spec, err, want)
		}
	}
}
