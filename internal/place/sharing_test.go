package place

import (
	"fmt"
	"math/rand"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const gib = int64(1) << 30

// h100 is a machine with one device that has the partitions of an H100 80GB.
func h100() *Machine {
	m := grid(1, 1, 1, 4, 1)
	m.Devices = []Device{{
		ID: "gpu0", Memory: 80 * gib, Shares: 48, MPS: true,
		Profiles: []Profile{
			{Name: "1g.10gb", Slices: 1, Starts: []int{0, 1, 2, 3, 4, 5, 6}, Memory: 10 * gib, Compute: 1},
			{Name: "2g.20gb", Slices: 2, Starts: []int{0, 2, 4}, Memory: 20 * gib, Compute: 2},
			{Name: "3g.40gb", Slices: 4, Starts: []int{0, 4}, Memory: 40 * gib, Compute: 3},
			{Name: "7g.80gb", Slices: 8, Starts: []int{0}, Memory: 80 * gib, Compute: 7},
		},
	}}
	return m
}

// part asks for a part of the device.
func part(name string, class Class, f Fraction) Request {
	return Request{Name: name, Class: class, Devices: []DeviceRequest{{Name: "gpu", Fraction: f}}}
}

// shared places requests one after the other and tells how each was granted,
// "" for a refusal.
func shared(t *testing.T, s *State, asked []Request) (got []Sharing, refusals string) {
	t.Helper()
	for _, r := range asked {
		p, err := s.Place(t.Context(), r)
		if err != nil {
			got, refusals = append(got, ""), refusals+err.Error()
			continue
		}
		got = append(got, p.Devices[0].Sharing)
		checkState(t, s)
	}
	return got, refusals
}

func TestSharingFollowsTheClass(t *testing.T) {
	without := h100()
	without.Devices[0].Profiles, without.Devices[0].MPS = nil, false
	objective := part("a", Interactive, Fraction{Milli: 300})
	objective.Latency = time.Millisecond
	for _, c := range []struct {
		name   string
		m      *Machine
		asked  []Request
		want   []Sharing
		refuse string
	}{
		{"a whole device", h100(), []Request{part("a", Interactive, Fraction{}), part("b", Batch, Fraction{})}, []Sharing{Exclusive, ""}, "release"},
		{"real-time work shares no processor", h100(),
			[]Request{part("a", Realtime, Fraction{Milli: 200}), part("b", Interactive, Fraction{Milli: 100}), part("c", Batch, Fraction{Milli: 100})},
			[]Sharing{Partitions, Partitions, Partitions}, ""},
		{"real-time work after others is refused", h100(), []Request{part("a", Interactive, Fraction{Milli: 100}), part("b", Realtime, Fraction{Milli: 100})},
			[]Sharing{MPS, ""}, "it is shared by mps now"},
		{"a share is a promise to every class", h100(),
			[]Request{part("a", Interactive, Fraction{Milli: 600}), part("b", Batch, Fraction{Milli: 400, Memory: 8 * gib}), part("c", Interactive, Fraction{Milli: 100, Memory: gib})},
			[]Sharing{MPS, MPS, ""}, "1000 thousandths of its processors are promised, 100 more are asked for"},
		{"memory is bounded too", h100(), []Request{part("a", Interactive, Fraction{Milli: 100, Memory: 60 * gib}), part("b", Interactive, Fraction{Milli: 500})},
			[]Sharing{MPS, ""}, "20 GiB of its memory are free"},
		{"turns for batch only among itself", without,
			[]Request{part("a", Batch, Fraction{Milli: 300}), part("b", Batch, Fraction{Milli: 300}), part("c", Interactive, Fraction{Milli: 100})},
			[]Sharing{TimeSlices, TimeSlices, ""}, "turns know no class"},
		{"turns keep no objective", without, []Request{objective}, []Sharing{""}, "no objective of 1ms"},
		{"real-time work takes a whole device without partitions", without, []Request{part("a", Realtime, Fraction{Milli: 300})}, []Sharing{Exclusive}, ""},
	} {
		got, refusals := shared(t, newState(t, c.m), c.asked)
		if diff := cmp.Diff(c.want, got); diff != "" || !strings.Contains(refusals, c.refuse) {
			t.Errorf("%s: refusals %q (-want +got):\n%s", c.name, refusals, diff)
		}
	}
}

// The smallest partition that holds a request is taken, compute and memory
// each looked at.
func TestPartitionForAShare(t *testing.T) {
	for want, f := range map[string]Fraction{
		"1g.10gb": {Milli: 100}, "2g.20gb": {Milli: 200}, "3g.40gb": {Milli: 400, Memory: gib}, "7g.80gb": {Milli: 500},
	} {
		p, err := newState(t, h100()).Place(t.Context(), part("a", Realtime, f))
		if err != nil || p.Devices[0].Profile != want {
			t.Errorf("%v: got %+v, %v, want %s", f, p.Devices, err, want)
		}
	}
	if p, err := newState(t, h100()).Place(t.Context(), part("a", Realtime, Fraction{Memory: 15 * gib})); err != nil || p.Devices[0].Profile != "2g.20gb" {
		t.Errorf("15Gi: got %+v, %v", p.Devices, err)
	}
}

// Of two devices that one is taken on which the better way is free.
func TestBetterWayElsewhere(t *testing.T) {
	m := h100()
	plain := Device{ID: "gpu1", Memory: 80 * gib, Shares: 16}
	m.Devices = append([]Device{plain}, m.Devices...)
	p, err := newState(t, m).Place(t.Context(), part("a", Interactive, Fraction{Milli: 300}))
	if err != nil || p.Devices[0].ID != "gpu0" || p.Devices[0].Sharing != MPS || p.Devices[0].Percent() != 30 || p.Devices[0].Memory != 80*gib/1000*300 {
		t.Errorf("got %+v, %v, want MPS on gpu0 rather than turns on gpu1", p.Devices, err)
	}
}

func TestForeignPartitions(t *testing.T) {
	s := newState(t, h100())
	mine, err := s.Place(t.Context(), part("mine", Interactive, Fraction{Profile: "1g.10gb"}))
	if err != nil {
		t.Fatal(err)
	}
	other := 4 // the half of the device in which mine is not
	if mine.Devices[0].Start >= 4 {
		other = 0
	}
	there := []DeviceGrant{{Profile: "1g.10gb", Start: mine.Devices[0].Start}, {Profile: "3g.40gb", Start: other}}
	s.Existing("gpu0", there)
	if _, err := s.Place(t.Context(), part("large", Interactive, Fraction{Profile: "3g.40gb"})); err == nil {
		t.Error("slices of somebody else's partition were given out")
	}
	if p, err := s.Place(t.Context(), part("small", Interactive, Fraction{Profile: "1g.10gb"})); err != nil || p.Devices[0].Start/4 == other/4 || p.Devices[0].Start == mine.Devices[0].Start {
		t.Errorf("beside it: %+v, %v", p.Devices, err)
	}
	s.Release("mine")
	s.Release("small")
	s.Existing("gpu0", there[1:])
	for _, f := range []Fraction{{}, {Milli: 100}} {
		if p, err := s.Place(t.Context(), part("other", Batch, f)); err == nil || !strings.Contains(err.Error(), "device") {
			t.Errorf("%v on a device that somebody else has cut: %+v, %v", f, p.Devices, err)
		}
	}
	s.Existing("gpu0", nil)
	if _, err := s.Place(t.Context(), part("other", Batch, Fraction{})); err != nil {
		t.Errorf("after they are gone: %v", err)
	}
}

// Whatever comes and goes, nothing is promised twice, one way of sharing holds
// at a time, and a device whose users are gone is whole again.
func TestNothingIsPromisedTwice(t *testing.T) {
	random := rand.New(rand.NewSource(5))
	for range 100 {
		s := newState(t, h100())
		for step := range 60 {
			if placed := s.Placements(); len(placed) > 0 && random.Intn(3) == 0 {
				s.Release(placed[random.Intn(len(placed))].Request.Name)
				continue
			}
			f := []Fraction{{}, {Profile: s.machine.Devices[0].Profiles[random.Intn(4)].Name}, {Milli: random.Int63n(500)}, {Milli: 1 + random.Int63n(500), Memory: random.Int63n(20) * gib}}[random.Intn(4)]
			_, _ = s.Place(t.Context(), part(fmt.Sprint(step), Class(random.Intn(3)), f))
			checkGrants(t, s)
		}
		for _, p := range s.Placements() {
			s.Release(p.Request.Name)
		}
		if !s.use[0].idle() || s.use[0] != (deviceUse{}) {
			t.Fatalf("all are gone: %+v", s.use[0])
		}
	}
}

func checkGrants(t *testing.T, s *State) {
	t.Helper()
	var memory, milli int64
	var taken uint64
	ways := map[Sharing]bool{}
	for _, p := range s.Placements() {
		g := p.Devices[0]
		memory += g.Memory
		ways[g.Sharing] = true
		if g.Sharing != Partitions {
			milli += g.Milli
		}
		if p.Request.Class == Realtime && g.Sharing != Partitions && g.Sharing != Exclusive {
			t.Fatalf("real-time work shares: %+v", g)
		}
		for _, profile := range s.machine.Devices[0].Profiles {
			if profile.Name != g.Profile {
				continue
			}
			mask := sliceMask(g.Start, profile.Slices)
			if taken&mask != 0 {
				t.Fatalf("a slice is given twice: %+v", s.Placements())
			}
			taken |= mask
		}
	}
	if memory > 80*gib || milli > 1000 || len(ways) > 1 {
		t.Fatalf("%d thousandths and %d GiB are promised by %v", milli, memory/gib, ways)
	}
}
