package object

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"oscine.dev/oscine/internal/place"
)

func workloadWith(resources string) string {
	return "apiVersion: oscine.dev/v1\nkind: Workload\nmetadata: {name: w}\nspec:\n  image: example.org/i:1\n  resources:\n" + resources
}

func TestResourcesBecomeARequest(t *testing.T) {
	objects, err := Kinds().Parse(strings.NewReader(workloadWith(`
    cpu: "4"
    cpuPolicy: exclusive
    coreKind: performance
    instructionSets: [avx512f, amx_tile]
    memory: 8Gi
    memoryKind: hbm
    hugePages: {2Mi: 64Mi, 1Gi: 2Gi}
    devices:
    - {name: gpu, count: 4, selector: 'device.driver == "gpu.nvidia.com"'}
    - {name: slice, fraction: {share: 250m, memory: 10Gi}}
    links:
    - {between: [gpu], by: nvlink}
    near: [front]
    apart: [Model/noisy]
    oneNode: true
    priority: 7
    latency: 5ms
`)))
	if err != nil {
		t.Fatal(err)
	}
	got, err := objects[0].(*Workload).Spec.Resources.Request("workload-w", Interactive)
	if err != nil {
		t.Fatal(err)
	}
	selector, err := place.CompileSelector(`device.driver == "gpu.nvidia.com"`)
	if err != nil {
		t.Fatal(err)
	}
	want := place.Request{
		Name: "workload-w", Class: place.Interactive, Priority: 7, MilliCPU: 4000, Exclusive: true,
		CoreKind: "performance", Features: []string{"avx512f", "amx_tile"}, Memory: 8 << 30, MemKind: place.HBM,
		HugePages: []place.HugePages{{Size: 2 << 20, Bytes: 64 << 20}, {Size: 1 << 30, Bytes: 2 << 30}},
		Devices: []place.DeviceRequest{
			{Name: "gpu", Count: 4, Selector: selector},
			{Name: "slice", Count: 1, Fraction: place.Fraction{Milli: 250, Memory: 10 << 30}},
		},
		Links: []place.LinkRequest{{Between: []string{"gpu"}, By: place.LinkNVLink}},
		Near:  []string{"workload-front"}, Apart: []string{"model-noisy"}, OneNode: true, Latency: 5 * time.Millisecond,
	}
	sameSelector := cmp.Comparer(func(a, b *place.Selector) bool { return a.String() == b.String() })
	if diff := cmp.Diff(want, got, sameSelector, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("request (-want +got):\n%s", diff)
	}
}

func TestResourcesReportEveryMistake(t *testing.T) {
	_, err := Kinds().Parse(strings.NewReader(workloadWith(`
    cpu: -1
    coreKind: turbo
    instructionSets: ["AVX 512"]
    memory: 1
    memoryKind: tape
    hugePages: {3Mi: 3Mi, 2Mi: 3Mi}
    devices:
    - {name: GPU, count: -2, selector: 'device.driver =='}
    - {name: a, fraction: {share: "2"}}
    - {name: a, fraction: {profile: 1g, share: 500m}}
    - {name: b, fraction: {}}
    links:
    - {between: [c], by: rope}
    near: ["no good", twin]
    apart: [twin]
    gang: {name: g, size: 0}
    priority: 99999999
`)))
	var errs Errors
	if !errors.As(err, &errs) {
		t.Fatalf("got %v, want Errors", err)
	}
	var got []string
	for _, e := range errs {
		got = append(got, strings.TrimPrefix(e.Path, "spec.resources."))
		if e.Line == 0 {
			t.Errorf("%s: no line", e.Path)
		}
	}
	want := []string{
		"cpu", "coreKind", "instructionSets[0]", "memory", "memoryKind", "hugePages.2Mi", "hugePages.3Mi",
		"devices[0].name", "devices[0].count", "devices[0].selector", "devices[1].fraction.share",
		"devices[2].name", "devices[2].fraction", "devices[3].fraction",
		"links[0].by", "links[0].between[0]", "near[0]", "apart[0]", "gang.size", "priority",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("paths (-want +got):\n%s", diff)
	}
}
