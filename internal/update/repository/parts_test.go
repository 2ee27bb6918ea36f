package repository

import "testing"

func TestFlavours(t *testing.T) {
	for kernel, want := range map[string][2]string{
		"7.2.12+deb13-cloud-amd64": {"cloud", "amd64"}, "7.2.12+deb13-amd64": {"metal", "amd64"}, "7.2.12+deb13-rt-arm64": {"rt", "arm64"},
		"7.2.12+deb13-arm64": {"metal", "arm64"}, "7.2.12": {}, "7.2.12-cloud-riscv64": {}, "": {},
	} {
		if flavour, arch := flavourOf(kernel); flavour != want[0] || arch != want[1] {
			t.Errorf("%q: got %q for %q", kernel, flavour, arch)
		}
	}
}
