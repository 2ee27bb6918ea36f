package cli

import (
	"strings"
	"testing"

	"oscine.dev/oscine/internal/pack"
)

// A release brings only packs that its nodes can use, and drivers of the kernel under a
// name by which nodes know them.
func TestCheckPacks(t *testing.T) {
	driver := &pack.KernelDriver{Name: "gpu", Version: "1", Kernels: []string{"7.2"}, Modules: []string{"gpu"}, Devices: []string{"pci:v1"}}
	for _, test := range []struct {
		file   string
		driver *pack.KernelDriver
		arch   string
		kernel string
		want   string
	}{
		{"/out/gpu-driver-amd64.erofs", driver, "amd64", "7.2", ""},
		{"/out/gpu-driver.erofs", driver, "amd64", "7.2", ""},
		{"/out/any.erofs", nil, "amd64", "7.2", ""},
		{"/out/gpu-driver-1.erofs", driver, "amd64", "7.2", "rename the file to gpu-driver-amd64.erofs"},
		{"/out/gpu-driver.erofs", driver, "arm64", "7.2", "the release for arm64"},
		{"/out/gpu-driver.erofs", driver, "amd64", "7.3", "none for 7.3"},
	} {
		p := &pack.Info{File: test.file}
		p.Name, p.Arch, p.Kernel = "gpu-driver", "amd64", test.driver
		err := checkPacks([]*pack.Info{p}, test.arch, test.kernel)
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s for %s %s: got %v, want %q", test.file, test.arch, test.kernel, err, test.want)
		}
	}
}
