package pack

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"oscine.dev/oscine/internal/pattern"
)

// ManifestPath is where a pack holds its manifest.
const ManifestPath = "pack.json"

// DriversPath is where a pack holds its driver programs, which the node calls
// with its own rights to learn of devices and to divide them; see
// internal/hardware.AskDrivers.
const DriversPath = "usr/lib/oscine/drivers"

// maxManifest bounds the bytes of a pack's manifest.
const maxManifest = 256 << 10

// Manifest describes a pack. It lies in the pack as /pack.json.
type Manifest struct {
	Name       string   `json:"name"`
	Version    string   `json:"version"`
	Arch       string   `json:"arch"`                 // amd64 or arm64
	Engines    []string `json:"engines,omitempty"`    // engines that a Model may name, for example onnxruntime
	Entrypoint []string `json:"entrypoint,omitempty"` // of the engines or of the tool: absolute path inside the pack, then fixed arguments
	Drivers    []string `json:"drivers,omitempty"`    // driver programs in DriversPath, for example oscine-nvml
	Tools      []string `json:"tools,omitempty"`      // what a Workload runs that names the pack, for example optimize-onnx
	// Of a pack with engines: the files that they read, the platform that
	// clients of a model see, the versions of the protocol between daemon and
	// worker, and the memory of a worker without a model.
	Formats     []Format `json:"formats,omitempty"`
	Platform    string   `json:"platform,omitempty"` // for example onnxruntime_onnx
	Protocols   []int    `json:"protocols,omitempty"`
	MemoryBytes int64    `json:"memoryBytes,omitempty"`
	Requires    Requires `json:"requires,omitzero"`
	// Kernel is the driver of the kernel that the pack brings, nil for none.
	Kernel   *KernelDriver `json:"kernel,omitempty"`
	Licences []Licence     `json:"licences"`
	Inputs   []Input       `json:"inputs"` // what the pack was built from
}

// Requires says what a pack cannot do without.
type Requires struct {
	CPU     []string `json:"cpu,omitempty"`     // features as /proc/cpuinfo names them, for example avx2
	Devices []string `json:"devices,omitempty"` // kinds of CDI devices, of which a model must ask for one, for example nvidia.com/gpu
	// KernelDrivers are kernel drivers, each with its least version: such a device
	// must be of one of them. For example nvidia: "580".
	KernelDrivers map[string]string `json:"kernelDrivers,omitempty"`
}

// Licence says under which terms a component of the pack is given on.
type Licence struct {
	Component string `json:"component"`
	SPDX      string `json:"spdx"`
	File      string `json:"file,omitempty"` // path of the text inside the pack
}

// Input is one pinned thing that a pack was built from.
type Input struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Digest  string `json:"digest"` // sha256:… or sha512:… in hex
}

var (
	nameRE          = pattern.New(`^[a-z0-9][a-z0-9.-]{0,62}$`)
	featureRE       = pattern.New(`^[a-z0-9_.]{1,40}$`)
	deviceRE        = pattern.New(`^[a-z0-9][a-z0-9.-]{0,62}/[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$`)
	driverRE        = pattern.New(`^[a-z0-9][a-z0-9_-]{0,62}$`)
	versionRE       = pattern.New(`^[A-Za-z0-9][A-Za-z0-9._+~-]{0,62}$`)
	platformRE      = pattern.New(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$`)
	driverVersionRE = pattern.New(`^[0-9]{1,6}(\.[0-9]{1,6}){0,3}$`)
	digestRE        = pattern.New(`^(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$`)
)

// ParseManifest reads and checks a pack's manifest. Foreign bytes are bounded
// by 256 KiB; unknown fields, missing names and relative entrypoints are
// errors.
func ParseManifest(data []byte) (*Manifest, error) {
	if len(data) > maxManifest {
		return nil, fmt.Errorf("pack.json: %d bytes, at most %d are accepted", len(data), maxManifest)
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	m := new(Manifest)
	if err := dec.Decode(m); err != nil {
		return nil, fmt.Errorf("pack.json: %w", err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, fmt.Errorf("pack.json: something follows the manifest")
	}
	if err := m.check(); err != nil {
		return nil, fmt.Errorf("pack.json: %w", err)
	}
	return m, nil
}

func (m *Manifest) check() error {
	switch {
	case !nameRE.MatchString(m.Name):
		return fmt.Errorf("name %q: must be lower-case letters, digits, '.' or '-', at most 63", m.Name)
	case !versionRE.MatchString(m.Version):
		return fmt.Errorf("version %q is not a version", m.Version)
	case m.Arch != "amd64" && m.Arch != "arm64":
		return fmt.Errorf("arch %q: must be amd64 or arm64", m.Arch)
	case len(m.Engines) == 0 && len(m.Drivers) == 0 && len(m.Tools) == 0:
		return fmt.Errorf("engines, drivers, tools: must name at least one")
	case len(m.Engines) > 0 && len(m.Tools) > 0:
		return fmt.Errorf("engines, tools: the entrypoint is for one of them: make two packs")
	case !m.runs() && len(m.Entrypoint) > 0:
		return fmt.Errorf("entrypoint: there is no engine or tool that it is for")
	case m.runs() && len(m.Entrypoint) == 0:
		return fmt.Errorf("entrypoint: is missing")
	case m.runs() && (!path.IsAbs(m.Entrypoint[0]) || path.Clean(m.Entrypoint[0]) != m.Entrypoint[0]):
		return fmt.Errorf("entrypoint %q: must be a clean absolute path inside the pack", m.Entrypoint[0])
	case slices.ContainsFunc(m.Entrypoint, func(s string) bool { return strings.ContainsRune(s, 0) }):
		return fmt.Errorf("entrypoint: holds a NUL byte")
	}
	if err := m.checkEngine(); err != nil {
		return err
	}
	for _, e := range m.Engines {
		if !nameRE.MatchString(e) {
			return fmt.Errorf("engine %q: must be lower-case letters, digits, '.' or '-'", e)
		}
	}
	for _, d := range m.Drivers {
		if !nameRE.MatchString(d) {
			return fmt.Errorf("driver %q: must be lower-case letters, digits, '.' or '-'", d)
		}
	}
	for _, t := range m.Tools {
		if !nameRE.MatchString(t) {
			return fmt.Errorf("tool %q: must be lower-case letters, digits, '.' or '-'", t)
		}
	}
	if m.Kernel != nil {
		if err := m.Kernel.check(); err != nil {
			return err
		}
	}
	for _, in := range m.Inputs {
		if !digestRE.MatchString(in.Digest) {
			return fmt.Errorf("input %q: digest %q is neither sha256:… nor sha512:…", in.Name, in.Digest)
		}
	}
	return nil
}

// runs reports whether the pack has a program that containers run.
func (m *Manifest) runs() bool { return len(m.Engines) > 0 || len(m.Tools) > 0 }

// maxList bounds the lists of a manifest, maxProtocol the versions.
const (
	maxList     = 32
	maxProtocol = 1000
)

func (m *Manifest) checkEngine() error {
	switch {
	case len(m.Engines) == 0 && (len(m.Formats) > 0 || len(m.Protocols) > 0 || m.Platform != "" || m.MemoryBytes != 0):
		return fmt.Errorf("formats, platform, protocols, memoryBytes: there is no engine that they are for")
	case len(m.Formats) > maxList || len(m.Protocols) > maxList || len(m.Requires.CPU) > maxList || len(m.Requires.Devices) > maxList || len(m.Requires.KernelDrivers) > maxList:
		return fmt.Errorf("formats, protocols, requires: at most %d of each are accepted", maxList)
	case m.Platform != "" && !platformRE.MatchString(m.Platform):
		return fmt.Errorf("platform %q: must be letters, digits, '_', '.' or '-', at most 63", m.Platform)
	case m.MemoryBytes < 0:
		return fmt.Errorf("memoryBytes: %d is negative", m.MemoryBytes)
	}
	for i := range m.Formats {
		if err := m.Formats[i].check(); err != nil {
			return fmt.Errorf("format %q: %w", m.Formats[i].Name, err)
		}
	}
	for _, v := range m.Protocols {
		if v < 1 || v > maxProtocol {
			return fmt.Errorf("protocols: %d is no version", v)
		}
	}
	for _, f := range m.Requires.CPU {
		if !featureRE.MatchString(f) {
			return fmt.Errorf("requires.cpu: %q is no feature of /proc/cpuinfo", f)
		}
	}
	if len(m.Requires.KernelDrivers) > 0 && len(m.Requires.Devices) == 0 {
		return fmt.Errorf("requires.kernelDrivers: requires.devices must say of which devices")
	}
	for name, least := range m.Requires.KernelDrivers {
		if !driverRE.MatchString(name) || !driverVersionRE.MatchString(least) {
			return fmt.Errorf("requires.kernelDrivers: %q: %q must be a driver's name and numbers with dots between", name, least)
		}
	}
	for _, d := range m.Requires.Devices {
		if !deviceRE.MatchString(d) {
			return fmt.Errorf("requires.devices: %q must be a kind of CDI devices, such as vendor.com/gpu", d)
		}
	}
	return nil
}
