package node

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strings"

	"oscine.dev/oscine/internal/container"
	"oscine.dev/oscine/internal/hardware"
	"oscine.dev/oscine/internal/node/allocate"
	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/place"
)

// cgroupPath is where an object's processes live.
func cgroupPath(class object.Class, id string) string {
	return "/oscine.slice/" + string(class) + "/" + id
}

// oomScore lets the kernel, short of memory, take batch work first and the
// system never.
func oomScore(class object.Class) int {
	switch class {
	case object.Realtime:
		return 0
	case object.Interactive:
		return 300
	}
	return 800
}

// manifestHash tells manifests apart.
func manifestHash(obj object.Object) string {
	raw, err := json.Marshal(obj)
	if err != nil {
		return "" // differs from every hash
	}
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:16])
}

func environment(env map[string]string) []string {
	var list []string
	for name, value := range env {
		list = append(list, name+"="+value)
	}
	slices.Sort(list)
	return list
}

// overridden puts variables in the place of those of the same name.
func overridden(env, over []string) []string {
	name := func(v string) string { name, _, _ := strings.Cut(v, "="); return name }
	env = slices.DeleteFunc(env, func(v string) bool {
		return slices.ContainsFunc(over, func(o string) bool { return name(o) == name(v) })
	})
	return append(env, over...)
}

// logBytes is the bound of one workload's log.
func (n *Node) logBytes() int64 {
	size, _ := n.machine.Spec.Logs.MaxSize.Value()
	return size
}

// defaultPIDs bounds the processes and threads of an object that names none.
const defaultPIDs = 1024

// limits is what the container runtime has the kernel enforce of a placement.
// The CPUs of a shared one change with its neighbours and are the isolator's;
// its share is a weight, and a quota only where the manifest asks for one.
func limits(p *allocate.Placement, r *object.Resources) container.Limits {
	quota, _ := r.CPULimit.MilliValue() // checked with the manifest
	l := container.Limits{
		MemoryNodes: place.FormatCPUs(p.NUMANodes), MemoryBytes: p.Request.Memory,
		MilliCPU: quota, PIDs: int64(r.PIDs),
	}
	if p.Request.Exclusive {
		l.CPUs = place.FormatCPUs(p.CPUs)
	}
	if l.PIDs == 0 {
		l.PIDs = defaultPIDs
	}
	return l
}

// mounts are the folders that a container needs for its shares of devices.
func mounts(shared []hardware.ShareMount) []container.Mount {
	var list []container.Mount
	for _, m := range shared {
		list = append(list, container.Mount{Source: m.Source, Target: m.Target})
	}
	return list
}
