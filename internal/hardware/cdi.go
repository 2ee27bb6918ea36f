package hardware

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"tags.cncf.io/container-device-interface/pkg/cdi"
	specs "tags.cncf.io/container-device-interface/specs-go"
)

// CDIVendor is the vendor of the CDI kinds: oscine.dev/gpu, oscine.dev/npu.
const CDIVendor = "oscine.dev"

// DriverLibraries is where a container finds the libraries that must be of the
// version of the node's kernel driver. NVIDIA's own images look there.
const DriverLibraries = "/usr/local/nvidia/lib64"

// CDI returns one CDI specification for each kind of usable accelerator, with
// a device for every accelerator and partition, and "all" for all of a kind.
// See https://github.com/cncf-tags/container-device-interface, SPEC.md.
func CDI(m *Machine) []*specs.Spec {
	byKind := map[string]*specs.Spec{}
	for i := range m.Accelerators {
		a := &m.Accelerators[i]
		if !a.Usable() || len(a.DeviceNodes) == 0 {
			continue
		}
		spec := byKind[a.Kind]
		if spec == nil {
			spec = &specs.Spec{Version: "0.6.0", Kind: CDIVendor + "/" + a.Kind}
			byKind[a.Kind] = spec
		}
		spec.Devices = append(spec.Devices, cdiDevice(a.ID, a.DeviceNodes, a))
		for _, p := range a.Partitions {
			spec.Devices = append(spec.Devices, cdiDevice(p.ID, append(slices.Clone(a.DeviceNodes), p.DeviceNodes...), a))
		}
	}
	var all []*specs.Spec
	for _, kind := range slices.Sorted(maps.Keys(byKind)) {
		spec := byKind[kind]
		spec.Devices = append(spec.Devices, allDevices(spec.Devices))
		all = append(all, spec)
	}
	return all
}

func cdiDevice(name string, nodes []string, a *Accelerator) specs.Device {
	d := specs.Device{Name: name, Annotations: map[string]string{"oscine.dev/address": a.Address}}
	if a.Vendor != "" {
		d.Annotations["oscine.dev/model"] = strings.TrimSpace(a.Vendor + " " + a.Model)
	}
	for _, n := range nodes {
		d.ContainerEdits.DeviceNodes = append(d.ContainerEdits.DeviceNodes, &specs.DeviceNode{Path: n})
	}
	for _, f := range a.Files {
		d.ContainerEdits.Mounts = append(d.ContainerEdits.Mounts, &specs.Mount{HostPath: f.Host, ContainerPath: f.Container, Type: "bind", Options: []string{"bind", "ro", "nosuid", "nodev"}})
	}
	return d
}

// allDevices is the device that stands for all whole devices of a kind.
func allDevices(devices []specs.Device) specs.Device {
	all := specs.Device{Name: "all"}
	seen := map[string]bool{}
	for _, d := range devices {
		if strings.Contains(d.Name, "-") {
			continue // a partition lies within its device
		}
		for _, n := range d.ContainerEdits.DeviceNodes {
			if !seen[n.Path] {
				seen[n.Path] = true
				all.ContainerEdits.DeviceNodes = append(all.ContainerEdits.DeviceNodes, n)
			}
		}
		for _, m := range d.ContainerEdits.Mounts {
			if !seen[m.ContainerPath] {
				seen[m.ContainerPath] = true
				all.ContainerEdits.Mounts = append(all.ContainerEdits.Mounts, m)
			}
		}
	}
	return all
}

// WriteCDI brings the CDI specifications in a directory up to date with the
// machine and returns the files that changed. A specification that is the
// same already is not touched, one without devices any more is removed; files
// of other vendors stay. Every file passes the CDI library's own checks.
func WriteCDI(dir string, m *Machine) ([]string, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("CDI directory: %w", err)
	}
	cache, err := cdi.NewCache(cdi.WithSpecDirs(dir), cdi.WithAutoRefresh(false))
	if err != nil {
		return nil, fmt.Errorf("CDI directory %s: %w", dir, err)
	}
	var changed []string
	wanted := map[string]bool{}
	for _, spec := range CDI(m) {
		name, err := cdi.GenerateNameForSpec(spec)
		if err != nil {
			return changed, fmt.Errorf("CDI specification %s: %w", spec.Kind, err)
		}
		name += ".json"
		wanted[name] = true
		if same(filepath.Join(dir, name), spec) {
			continue
		}
		if err := cache.WriteSpec(spec, name); err != nil {
			return changed, fmt.Errorf("CDI specification %s: %w", spec.Kind, err)
		}
		changed = append(changed, name)
	}
	gone, err := removeStale(dir, wanted)
	slices.SortFunc(gone, cmp.Compare)
	return append(changed, gone...), err
}

// same reports whether a file holds just this specification.
func same(file string, spec *specs.Spec) bool {
	data, err := os.ReadFile(file)
	if err != nil {
		return false
	}
	old, err := cdi.ParseSpec(data)
	if err != nil {
		return false
	}
	was, err1 := json.Marshal(old)
	is, err2 := json.Marshal(spec)
	return err1 == nil && err2 == nil && string(was) == string(is)
}

func removeStale(dir string, wanted map[string]bool) ([]string, error) {
	files, err := filepath.Glob(filepath.Join(dir, CDIVendor+"-*.json"))
	if err != nil {
		return nil, err
	}
	var gone []string
	var failed error
	for _, file := range files {
		if name := filepath.Base(file); !wanted[name] {
			failed = errors.Join(failed, os.Remove(file))
			gone = append(gone, name)
		}
	}
	return gone, failed
}
