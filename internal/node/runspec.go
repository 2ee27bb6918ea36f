package node

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strings"

	"oscine.dev/oscine/internal/object"
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
