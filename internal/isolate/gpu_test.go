package isolate

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const gib = int64(1) << 30

// h100 is a device with the partitions of an H100 80GB.
func h100() GPU {
	return GPU{
		ID: "gpu0", Memory: 80 * gib, Slices: 7, MPS: true, TimeSlices: true, Overhead: 512 << 20,
		Partitions: []GPUProfile{
			{"1g.10gb", 1, 10 * gib, []int{0, 1, 2, 3, 4, 5, 6}},
			{"2g.20gb", 2, 20 * gib, []int{0, 2, 4}},
			{"3g.40gb", 3, 40 * gib, []int{0, 4}},
			{"7g.80gb", 7, 80 * gib, []int{0}},
		},
	}
}

func TestGPUSharingFollowsTheClass(t *testing.T) {
	without := h100()
	without.Partitions, without.MPS = nil, false
	for _, c := range []struct {
		name  string
		gpu   GPU
		asked []GPURequest
		want  []Sharing // "" for a refusal
	}{
		{"a whole device", h100(), []GPURequest{{ID: "a", Class: Interactive}, {ID: "b", Class: Batch}}, []Sharing{SharingExclusive, ""}},
		{"real-time work shares no processor", h100(), []GPURequest{{ID: "a", Class: Realtime, Milli: 200}, {ID: "b", Class: Interactive, Milli: 100}, {ID: "c", Class: Batch, Milli: 100}},
			[]Sharing{SharingMIG, SharingMIG, SharingMIG}},
		{"real-time work after others is refused", h100(), []GPURequest{{ID: "a", Class: Interactive, Milli: 100}, {ID: "b", Class: Realtime, Milli: 100}}, []Sharing{SharingMPS, ""}},
		{"interactive work and batch behind it", h100(), []GPURequest{{ID: "a", Class: Interactive, Milli: 600}, {ID: "b", Class: Batch, Milli: 1000, Memory: 8 * gib}, {ID: "c", Class: Interactive, Milli: 500, Memory: gib}},
			[]Sharing{SharingMPS, SharingMPS, ""}},
		{"turns for batch only among itself", without, []GPURequest{{ID: "a", Class: Batch, Milli: 300}, {ID: "b", Class: Batch, Milli: 300}, {ID: "c", Class: Interactive, Milli: 100}},
			[]Sharing{SharingTime, SharingTime, ""}},
		{"turns keep no objective", without, []GPURequest{{ID: "a", Class: Interactive, Milli: 300, Objective: time.Millisecond}}, []Sharing{""}},
		{"real-time work takes a whole device without partitions", without, []GPURequest{{ID: "a", Class: Realtime, Milli: 300}}, []Sharing{SharingExclusive}},
	} {
		a := NewGPUArbiter(c.gpu)
		var got []Sharing
		for _, r := range c.asked {
			g, err := a.Admit(r)
			if err != nil && !errors.Is(err, ErrNoGPUShare) {
				t.Errorf("%s: %v", c.name, err)
			}
			got = append(got, g.Sharing)
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}

func TestGPURefusesNonsense(t *testing.T) {
	a := NewGPUArbiter(h100())
	if _, err := a.Admit(GPURequest{ID: "a", Class: Interactive, Milli: 100}); err != nil {
		t.Fatal(err)
	}
	for _, r := range []GPURequest{
		{ID: "a", Class: Interactive, Milli: 100}, {ID: "b", Class: "fast", Milli: 1}, {ID: "b", Class: Batch, Milli: -1},
		{ID: "b", Class: Batch, Milli: 1001}, {ID: "b", Class: Batch, Memory: 81 * gib}, {ID: "b", Class: Batch, Profile: "1g.10gb", Milli: 1},
	} {
		if _, err := a.Admit(r); !errors.Is(err, ErrInvalid) {
			t.Errorf("%+v: got %v, want %v", r, err, ErrInvalid)
		}
	}
}

func TestMPSEnvironment(t *testing.T) {
	a := NewGPUArbiter(h100())
	g, err := a.Admit(GPURequest{ID: "a", Class: Batch, Milli: 255, Memory: 4 * gib})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"CUDA_MPS_ACTIVE_THREAD_PERCENTAGE=26", "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT=0=4096M", "CUDA_MPS_CLIENT_PRIORITY=1"}
	if diff := cmp.Diff(want, g.Environment()); diff != "" {
		t.Error(diff)
	}
}

// Whatever comes and goes, nothing is promised twice, and a device whose users
// are gone is whole again.
func TestGPUIsNeverOverPromised(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	for range 200 {
		a := NewGPUArbiter(h100())
		for step := range 60 {
			if grants := a.Grants(); len(grants) > 0 && random.IntN(3) == 0 {
				a.Release(grants[random.IntN(len(grants))].ID)
				continue
			}
			r := GPURequest{ID: fmt.Sprint(step), Class: []Class{Realtime, Interactive, Batch}[random.IntN(3)]}
			switch random.IntN(4) {
			case 0:
				r.Profile = a.gpu.Partitions[random.IntN(4)].Name
			case 1, 2:
				r.Milli, r.Memory = random.Int64N(500), random.Int64N(20)*gib
			}
			if _, err := a.Admit(r); err != nil && !errors.Is(err, ErrNoGPUShare) {
				t.Fatal(err)
			}
			checkGrants(t, a)
		}
	}
}

func checkGrants(t *testing.T, a *GPUArbiter) {
	t.Helper()
	var memory int64
	percent, slicesTaken := 0, uint64(0)
	for _, g := range a.grants {
		memory += g.Memory
		if !g.LowPrio {
			percent += g.Percent
		}
		if g.Sharing != a.Sharing() {
			t.Fatalf("two ways of sharing at once: %+v", a.grants)
		}
		if g.Class == Realtime && g.Sharing != SharingMIG && g.Sharing != SharingExclusive {
			t.Fatalf("real-time work shares: %+v", g)
		}
		if i := slices.IndexFunc(a.gpu.Partitions, func(p GPUProfile) bool { return p.Name == g.Profile }); i >= 0 {
			mask := sliceMask(g.Start, a.gpu.Partitions[i].Slices)
			if slicesTaken&mask != 0 {
				t.Fatalf("a slice is given twice: %+v", a.grants)
			}
			slicesTaken |= mask
		}
	}
	if memory > a.gpu.Memory || percent > 100 {
		t.Fatalf("%d %% and %d GiB are promised: %+v", percent, memory/gib, a.grants)
	}
}
