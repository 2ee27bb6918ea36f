package nvml

import (
	"os"
	"path/filepath"
	"strings"

	"oscine.dev/oscine/internal/hardware"
)

// files are the driver's libraries that a program in a container needs, which
// must be of the version of the kernel driver and so cannot be in its image.
// They lie beside NVML.
func (l *Library) files() []hardware.DeviceFile {
	dir := l.folder()
	if dir == "" {
		return nil
	}
	all := []hardware.DeviceFile{}
	for _, lib := range []struct{ name, soname string }{
		{"libcuda.so", "1"}, {"libnvidia-ml.so", "1"}, {"libnvidia-ptxjitcompiler.so", "1"}, {"libnvidia-nvvm.so", "4"},
		{"libnvidia-gpucomp.so", l.driver}, {"libcudadebugger.so", "1"}, {"libnvidia-opencl.so", "1"},
		// Vulkan without a window system.
		{"libEGL_nvidia.so", "0"}, {"libnvidia-eglcore.so", l.driver}, {"libnvidia-glsi.so", l.driver}, {"libnvidia-tls.so", l.driver}, {"libnvidia-glvkspirv.so", l.driver},
	} {
		file := filepath.Join(dir, lib.name+"."+l.driver)
		if info, err := os.Stat(file); err == nil && info.Mode().IsRegular() {
			all = append(all, hardware.DeviceFile{Host: file, Container: hardware.DriverLibraries + "/" + lib.name + "." + lib.soname})
		}
	}
	return all
}

// folder is where the library lies that the linker found, "" where that cannot
// be told.
func (l *Library) folder() string {
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(maps)) {
		if _, path, ok := strings.Cut(strings.TrimSpace(line), "/"); ok && strings.HasPrefix(filepath.Base(path), "libnvidia-ml.so") {
			return filepath.Dir("/" + path)
		}
	}
	return ""
}
