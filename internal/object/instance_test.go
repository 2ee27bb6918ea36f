package object

import (
	"strings"
	"testing"
)

func TestInstanceKeys(t *testing.T) {
	long := Key{KindModel, strings.Repeat("a", MaxName)}
	for i, want := range map[int]string{0: "model-" + long.Name, 1: "model2-" + long.Name, 31: "model32-" + long.Name} {
		key := InstanceKey(long, i)
		if key.ID() != want || len(key.ID()) > MaxID {
			t.Errorf("instance %d: got %s", i, key.ID())
		}
		if of, k := key.Instance(); of != long || k != i {
			t.Errorf("%s: instance %d of %s", key, k, of)
		}
		if of, k, err := Kinds().ParseInstance(key.ID()); of != long || k != i || err != nil {
			t.Errorf("%s: instance %d of %s, %v", key.ID(), k, of, err)
		}
		if of, err := Kinds().ParseID(key.ID()); of != long || err != nil {
			t.Errorf("%s is of %s, %v", key.ID(), of, err)
		}
	}
	for _, id := range []string{"model1-a", "model0-a", "model02-a", "model33-a", "model-2-", "workload2-a", "2-a", "model2"} {
		if of, i, err := Kinds().ParseInstance(id); err == nil {
			t.Errorf("%s is instance %d of %s", id, i, of)
		}
	}
}

func TestInstancesOfAModel(t *testing.T) {
	const manifest = "apiVersion: oscine.dev/v1\nkind: Model\nmetadata: {name: m}\nspec: {source: 'release:m.onnx', "
	for bad, want := range map[string]string{
		"instances: 33}": "spec.instances: must be from 1 to 32, got 33", "instances: -1}": "spec.instances: must be from 1 to 32, got -1", "instances: 0}": "spec.instances: must be from 1 to 32, got 0",
		"instances: 2, resources: {gang: {name: g, size: 2}}}": "spec.instances: a gang's member is one worker",
		"instances: many}": "instances",
	} {
		if _, err := Kinds().Parse(strings.NewReader(manifest + bad + "\n")); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", bad, err, want)
		}
	}
	objects, err := Kinds().Parse(strings.NewReader(manifest + "instances: 3}\n"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, obj := range Instances(objects[0]) {
		req, err := PlaceRequest(obj.(Placeable))
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, obj.Key().String()+" "+req.Name+" "+req.Of)
	}
	if got, want := strings.Join(names, ", "), "Model/m model-m , Model2/m model2-m model-m, Model3/m model3-m model-m"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
