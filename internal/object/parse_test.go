package object

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func parseOne(t *testing.T, text string) Object {
	t.Helper()
	objects, err := Kinds().Parse(strings.NewReader(text))
	if err != nil {
		t.Fatalf("Parse: %v", err)
	}
	if len(objects) != 1 {
		t.Fatalf("got %d objects, want 1", len(objects))
	}
	return objects[0]
}

const webManifest = `
apiVersion: oscine.dev/v1
kind: Workload
metadata: {name: web, labels: {app: web}}
spec:
  image: docker.io/library/nginx:1.27
  env: {PORT: "80"}
  resources: {cpu: 500m, memory: 256Mi}
  ports: [{port: 80, hostPort: 8080}, {port: 53, protocol: udp}]
  volumes: [{name: data, path: /data}]
  health: {http: {port: 80}}
`

func TestWorkloadDefaults(t *testing.T) {
	w := parseOne(t, webManifest).(*Workload)
	if w.Spec.Class != Interactive || w.Spec.Restart != RestartAlways || w.Spec.StopGrace.Std() != 10*time.Second {
		t.Errorf("got class %q, restart %q, grace %v", w.Spec.Class, w.Spec.Restart, w.Spec.StopGrace.Std())
	}
	wantPorts := []Port{{Port: 80, HostPort: 8080, Protocol: "tcp"}, {Port: 53, HostPort: 53, Protocol: "udp"}}
	if diff := cmp.Diff(wantPorts, w.Spec.Ports); diff != "" {
		t.Errorf("ports (-want +got):\n%s", diff)
	}
	if milli, ok := w.Spec.Resources.CPU.MilliValue(); milli != 500 || !ok {
		t.Errorf("cpu: got %d, %v, want 500", milli, ok)
	}
	if h := w.Spec.Health; h.HTTP.Path != "/" || h.Retries != 3 || h.Interval.Std() != 10*time.Second {
		t.Errorf("health: got %+v", h)
	}
}

// An object that went through JSON, as in the store, is the same object.
func TestRoundTrip(t *testing.T) {
	first := parseOne(t, webManifest)
	raw, err := json.Marshal(first)
	if err != nil {
		t.Fatal(err)
	}
	second := parseOne(t, string(raw))
	again, err := json.Marshal(second)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(raw), string(again)); diff != "" {
		t.Errorf("JSON (-first +second):\n%s", diff)
	}
}

func TestEveryMistakeIsReported(t *testing.T) {
	_, err := Kinds().Parse(strings.NewReader(`apiVersion: oscine.dev/v1
kind: Workload
metadata: {name: Web_1}
spec:
  image: nginx
  imagge: nginx
  class: fast
  user: "0"
  resources:
    cpu: many
    memory: -5
    cpuPolicy: exclusive
  ports:
  - port: 99999
  - port: eighty
  volumes: [{name: data, path: relative}]
  health: {}
  restart: [always]
---
kind: Workload
apiVersion: v1
spec: {}
---
apiVersion: oscine.dev/v1
kind: Pod
`))
	var got string
	if err != nil {
		got = err.Error()
	}
	for _, want := range []string{
		`line 3: metadata.name: must be 1 to 63`,
		`line 6: spec.imagge: unknown field; did you mean "image"?`,
		`line 7: spec.class: must be one of realtime, interactive, batch, got "fast"`,
		`line 8: spec.user: 0 is root`,
		`line 10: spec.resources.cpu: "many" is not a quantity`,
		`line 11: spec.resources.memory: `,
		`line 14: spec.ports[0].port: must be from 1 to 65535, got 99999`,
		`line 15: spec.ports[1].port: must be a whole number`,
		`line 16: spec.volumes[0].path: must be an absolute path`,
		`line 17: spec.health: needs exactly one of http, tcp and exec`,
		`line 18: spec.restart: must be text, got a list`,
		`line 21: apiVersion: must be "oscine.dev/v1", got "v1"`,
		`line 25: kind: must be Machine, Workload, Model or Secret, got "Pod"`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("the error lacks %q", want)
		}
	}
	if t.Failed() {
		t.Logf("got:\n%s", got)
	}
}

func TestRefusedStreams(t *testing.T) {
	deep := strings.Repeat("[", 100) + strings.Repeat("]", 100)
	bomb := "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: [*e,*e,*e,*e,*e,*e,*e,*e,*e]\n"
	for name, tc := range map[string]struct{ text, want string }{
		"empty":      {"", "holds no object"},
		"only nulls": {"---\n---\n", "holds no object"},
		"scalar":     {"hello", "a manifest is a mapping"},
		"not YAML":   {"a: [", "not YAML"},
		"too large":  {strings.Repeat("#", MaxBytes+1), "larger than"},
		"deep":       {"apiVersion: oscine.dev/v1\nkind: Workload\nspec: " + deep, "nested too deeply"},
		"bomb":       {bomb, "too large or nested too deeply"},
		"same twice": {webManifest + "---" + webManifest, "appears twice"},
		"documents":  {strings.Repeat("---\n", MaxObjects+1) + "x", "more than 256 documents"},
	} {
		t.Run(name, func(t *testing.T) {
			objects, err := Kinds().Parse(strings.NewReader(tc.text))
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, %v, want an error with %q", objects, err, tc.want)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add(webManifest)
	f.Add("{\"apiVersion\": \"oscine.dev/v1\", \"kind\": \"Model\", \"metadata\": {\"name\": \"m\"}, \"spec\": {}}")
	f.Add("a: &a [*a]")
	f.Add("? {a: b}\n: c")
	f.Fuzz(func(t *testing.T, text string) {
		objects, err := Kinds().Parse(strings.NewReader(text))
		if (err == nil) == (len(objects) == 0) {
			t.Errorf("got %d objects and error %v", len(objects), err)
		}
		for _, obj := range objects {
			if _, err := json.Marshal(obj); err != nil {
				t.Errorf("a valid object does not encode: %v", err)
			}
		}
	})
}
