package sandbox

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strings"

	"oscine.dev/oscine/internal/container"
	"oscine.dev/oscine/internal/hardware"
	"oscine.dev/oscine/internal/isolate"
	"oscine.dev/oscine/internal/node/allocate"
	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/place"
)

// LabelManifest is the label of a container that holds the hash of the manifest
// that it was started for.
const LabelManifest = "oscine.dev/manifest"

// Hash tells manifests apart.
func Hash(obj object.Object) string {
	raw, err := json.Marshal(obj)
	if err != nil {
		return "" // differs from every hash
	}
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:16])
}

// complete fills in what follows from the object and its placement.
func (r *Run) complete() {
	spec, key, p := &r.Spec, r.Object.Key(), r.Placement
	spec.ID, spec.Hostname = key.ID(), key.Name
	spec.Labels = map[string]string{LabelManifest: Hash(r.Object)}
	spec.Limits = limits(p, r.Object.Resources())
	spec.CgroupPath = "/oscine.slice/" + string(r.Object.Class()) + "/" + key.ID()
	spec.OOMScore = oomScore(r.Object.Class())
	spec.Devices = p.Devices
	spec.Env = overridden(spec.Env, p.Env)
	var mounts []container.Mount
	for _, m := range p.Mounts {
		mounts = append(mounts, container.Mount{Source: m.Source, Target: m.Target})
	}
	spec.Mounts = append(mounts, spec.Mounts...)
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

// overridden puts variables in the place of those of the same name.
func overridden(env, over []string) []string {
	name := func(v string) string { name, _, _ := strings.Cut(v, "="); return name }
	env = slices.DeleteFunc(slices.Clone(env), func(v string) bool {
		return slices.ContainsFunc(over, func(o string) bool { return name(o) == name(v) })
	})
	return append(env, over...)
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

// promise is what is set up in the kernel for a placed object before it starts.
func (r *Run) promise() isolate.Spec {
	resources, p := r.Object.Resources(), r.Placement
	s := isolate.Spec{
		ID: r.Object.Key().ID(), Class: r.Object.Class(),
		CPUs: hardware.NewSet(p.CPUs...), MemoryNodes: hardware.NewSet(p.NUMANodes...), Exclusive: p.Request.Exclusive,
		MilliCPU: p.Request.MilliCPU, Memory: p.Request.Memory, Objective: resources.Latency.Std(),
		Idle: hardware.NewSet(p.Held...), HugePages: p.Request.HugePages, Deadline: reservation(resources.Deadline),
	}
	if r.KeepMemory {
		s.MemoryLow = p.Request.Memory
	}
	return s
}

func reservation(r *object.Reservation) *isolate.Reservation {
	if r == nil {
		return nil
	}
	return &isolate.Reservation{Runtime: r.Runtime.Std(), Deadline: r.Deadline.Std(), Period: r.Period.Std()}
}
