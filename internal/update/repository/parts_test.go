package repository

import (
	"bytes"
	"testing"

	"oscine.dev/oscine/internal/release"
)

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

// The hash tree that a pack ends with is named, and nothing of a file that has none.
func TestVerityOf(t *testing.T) {
	data := bytes.Repeat([]byte("data of a pack\n"), 3*release.BlockSize/15+1)[:3*release.BlockSize]
	tree, want, err := release.HashTree(bytes.NewReader(data), nil)
	if err != nil {
		t.Fatal(err)
	}
	whole := append(bytes.Clone(data), tree...)
	altered := bytes.Clone(whole)
	altered[17] ^= 1
	for name, test := range map[string]struct {
		file []byte
		want string
	}{"a pack": {whole, want.String()}, "altered": {altered, ""}, "without a tree": {data, ""}, "other bytes": {[]byte("a model"), ""}, "none": {nil, ""}} {
		if got, err := verityOf(bytes.NewReader(test.file), int64(len(test.file))); err != nil || got != test.want {
			t.Errorf("%s: %q, %v, want %q", name, got, err, test.want)
		}
	}
}
