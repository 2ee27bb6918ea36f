package object

import (
	"cmp"
	"strconv"
	"strings"
)

// MaxInstances bounds the instances of a Model.
const MaxInstances = 32

// InstanceKey is the key by which what belongs to the i-th worker of an object has its
// name, from 0: the first has the object's own. The second of Model/digits is
// Model2/digits, with the ID model2-digits.
func InstanceKey(of Key, i int) Key {
	if i > 0 {
		of.Kind += Kind(strconv.Itoa(i + 1))
	}
	return of
}

// Instance is the inverse of InstanceKey.
func (k Key) Instance() (of Key, i int) {
	kind := strings.TrimRight(string(k.Kind), "0123456789")
	digits := string(k.Kind)[len(kind):]
	if n, err := strconv.Atoi(digits); err == nil && n > 1 && n <= MaxInstances && digits == strconv.Itoa(n) {
		return Key{Kind(kind), k.Name}, n - 1
	}
	return k, 0
}

// Workers is how many instances a Model has, 0 for an ensemble.
func (m *Model) Workers() int {
	if m.Spec.Ensemble != nil {
		return 0
	}
	return cmp.Or(m.Spec.Instances, 1)
}

// Instance is the Model as what its i-th worker is placed and started for.
func (m *Model) Instance(i int) *Model {
	if i == 0 {
		return m
	}
	copied := *m
	copied.Kind = InstanceKey(m.Key(), i).Kind
	return &copied
}

// Instances are an object's workers as objects of their own, each of which is placed:
// those of a Model, else the object itself.
func Instances(obj Object) []Object {
	m, ok := obj.(*Model)
	if !ok {
		return []Object{obj}
	}
	var all []Object
	for i := range m.Workers() {
		all = append(all, m.Instance(i))
	}
	return all
}
