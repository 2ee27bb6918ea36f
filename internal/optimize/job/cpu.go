package job

import (
	"os"
	"runtime"
	"slices"
	"strings"
)

// cpu is what the processor is and can do.
type cpu struct {
	arch, name string
	features   []string
}

// readCPU reads the first processor of /proc/cpuinfo. Where that says nothing, the
// processor counts as one that can do little.
func readCPU(file string) cpu {
	c := cpu{arch: runtime.GOARCH}
	text, err := os.ReadFile(file)
	if err != nil {
		return c
	}
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(line, ":")
		switch strings.TrimSpace(key) {
		case "model name":
			c.name = strings.TrimSpace(value)
		case "flags", "Features":
			c.features = strings.Fields(value)
			return c
		}
	}
	return c
}

// integer are the features by which eight-bit products are added without loss.
func integer() []string {
	return []string{"avx_vnni", "avx512_vnni", "amx_int8", "asimddp", "i8mm"}
}

// deciding are the features that decide how a model is quantised.
func (c cpu) deciding() []string {
	var list []string
	for _, f := range integer() {
		if slices.Contains(c.features, f) {
			list = append(list, f)
		}
	}
	return list
}

// saturates reports whether sums of two eight-bit products can overflow, as on amd64
// without VNNI: weights of seven bits avoid that.
// Source: ONNX Runtime, quantize_static, "Choosing parameters for CPU inference".
func (c cpu) saturates() bool { return c.arch == "amd64" && len(c.deciding()) == 0 }

// activation is the type that ONNX Runtime's kernels for the architecture like best.
// Source: as of saturates.
func (c cpu) activation() string {
	if c.arch == "arm64" {
		return "QInt8"
	}
	return "QUInt8"
}
