package cli

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/structpb"

	"oscine.dev/oscine/internal/api/oscinepb"
	"oscine.dev/oscine/internal/object"
)

// asSent is an object with its status as a node sends it.
func asSent(t *testing.T, obj object.Object, status object.Status) *oscinepb.Object {
	t.Helper()
	toStruct := func(v any) *structpb.Struct {
		raw, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		s := &structpb.Struct{}
		if err := s.UnmarshalJSON(raw); err != nil {
			t.Fatal(err)
		}
		return s
	}
	return &oscinepb.Object{Kind: string(obj.Key().Kind), Name: obj.Key().Name, Manifest: toStruct(obj), Status: toStruct(status)}
}

// What get prints can be applied again and means the same.
func TestWhatGetPrintsCanBeApplied(t *testing.T) {
	objects, err := object.Kinds().Parse(strings.NewReader(`
apiVersion: oscine.dev/v1
kind: Workload
metadata: {name: web, labels: {version: "1.10", on: "yes"}}
spec:
  image: nginx:1.27
  args: ["-c", "echo a\necho b\n", "0x10", "1e3", "~", "null"]
  resources: {cpu: 1500m, memory: 67108864, priority: 1000000, hugePages: {2Mi: 64Mi}, pids: 4096}
  stopGrace: 90s
`))
	if err != nil {
		t.Fatal(err)
	}
	sent := asSent(t, objects[0], &object.WorkloadStatus{
		Observed: object.Observed{Phase: object.Running, Message: "a: b\nc"},
		Storage:  []object.StorageStatus{{Name: "volume data", Used: 67108864}},
	})
	for _, output := range []string{"yaml", "json"} {
		var out bytes.Buffer
		if err := printObjects(&Env{Out: &out, Kinds: object.Kinds()}, []*oscinepb.Object{sent}, output); err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"1500m", "67108864", "1000000", "2Mi", "1m30s", "Running"} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("-o %s lacks %q:\n%s", output, want, &out)
			}
		}
		text := strings.TrimSpace(out.String())
		if output == "json" { // a list
			text = strings.TrimSuffix(strings.TrimPrefix(text, "["), "]")
		}
		again, err := object.Kinds().Parse(strings.NewReader(text))
		if err != nil {
			t.Fatalf("-o %s cannot be applied: %v\n%s", output, err, text)
		}
		first, _ := json.Marshal(objects[0])
		second, _ := json.Marshal(again[0])
		if diff := cmp.Diff(string(first), string(second)); diff != "" {
			t.Errorf("-o %s (-applied +got):\n%s", output, diff)
		}
	}
}

func TestColumnsFollowTheKind(t *testing.T) {
	model := &object.Model{Header: object.Header{Kind: object.KindModel, Metadata: object.Metadata{Name: "digits"}}}
	workload := &object.Workload{Header: object.Header{Kind: object.KindWorkload, Metadata: object.Metadata{Name: "web"}}}
	digits := asSent(t, model, &object.ModelStatus{Observed: object.Observed{Phase: object.Running, Placement: &object.PlacementStatus{CPUs: "0-3"}}, Engine: "onnxruntime", Requests: 12345678})
	web := asSent(t, workload, &object.WorkloadStatus{Observed: object.Observed{Phase: object.Waiting, Message: "no image\nat all", Restarts: 2}})
	for _, c := range []struct {
		objects []*oscinepb.Object
		want    string
	}{
		{nil, "KIND  NAME  PHASE  CPUS  RESTARTS  AGE  MESSAGE\n"},
		{[]*oscinepb.Object{digits}, "KIND   NAME    PHASE    CPUS  RESTARTS  AGE  ENGINE       REQUESTS  P99  MESSAGE\nModel  digits  Running  0-3   0         -    onnxruntime  12345678  -    \n"},
		{[]*oscinepb.Object{digits, web}, "KIND      NAME    PHASE    CPUS  RESTARTS  AGE  MESSAGE\nModel     digits  Running  0-3   0         -    \nWorkload  web     Waiting  -     2         -    no image\n"},
	} {
		var out bytes.Buffer
		if err := printObjects(&Env{Out: &out, Kinds: object.Kinds()}, c.objects, "table"); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c.want, out.String()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
}

// A deletion is a change as others are, for people and for programs.
func TestDeletionIsPrinted(t *testing.T) {
	m := &oscinepb.WatchResponse{Event: "deleted", Object: &oscinepb.Object{Kind: "Model", Name: "digits"}}
	for output, want := range map[string]string{
		"table": "model/digits deleted\n",
		"json":  `{"event":"deleted","kind":"Model","name":"digits"}` + "\n",
	} {
		var out bytes.Buffer
		if err := printChange(&Env{Out: &out, Kinds: object.Kinds()}, m, output); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, out.String()); diff != "" {
			t.Errorf("-o %s (-want +got):\n%s", output, diff)
		}
	}
}

func structOf(t *testing.T, text string) *structpb.Struct {
	t.Helper()
	s := &structpb.Struct{}
	if err := s.UnmarshalJSON([]byte(text)); err != nil {
		t.Fatal(err)
	}
	return s
}
