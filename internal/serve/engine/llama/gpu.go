package llama

import (
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"time"

	"oscine.dev/oscine/internal/printable"
)

// gpuDevice is llama.cpp's name of the first GPU that Vulkan shows.
const gpuDevice = "Vulkan0"

// listTime bounds the listing of devices.
const listTime = 30 * time.Second

// gpuLine is a device as llama-server lists it: "Vulkan0: NVIDIA H200 (143771 MiB, 143000 MiB free)".
var gpuLine = regexp.MustCompile(`(?m)^\s*` + gpuDevice + `: (.*?)(?: \([0-9]+ MiB.*\))?$`)

// findGPU returns the name of the GPU that models run on. llama-server itself would
// go on without one, many times slower.
func (e *Engine) findGPU() (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), listTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, e.program, "--list-devices")
	cmd.Env = environment(e.dir)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("ask llama-server for its GPUs: %w: %s", err, printable.Text(strings.TrimSpace(string(out))))
	}
	m := gpuLine.FindSubmatch(out)
	if m == nil {
		return "", fmt.Errorf("there is no GPU that Vulkan shows: ask for one of NVIDIA's in spec.resources.devices; its driver's libraries for Vulkan (libEGL_nvidia.so.0, on Debian libegl-nvidia0 and nvidia-egl-common) come with the device")
	}
	return printable.Text(string(m[1])), nil
}
