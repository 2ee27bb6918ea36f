package place

import (
	"errors"
	"fmt"
	"math/rand"
	"testing"
)

func randomFleet(t testing.TB, r *rand.Rand, n int) *Fleet {
	t.Helper()
	var nodes []FleetNode
	for i := range n {
		nodes = append(nodes, FleetNode{Name: fmt.Sprint("n", i), MilliCPU: int64(8+r.Intn(90)) * 1000, Memory: 100, GPUs: r.Intn(9), Model: string(rune('A' + r.Intn(3)))})
	}
	f, err := NewFleet(nodes, nil)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func randomShape(r *rand.Rand) Shape {
	s := Shape{MilliCPU: int64(r.Intn(20)) * 500, Memory: int64(r.Intn(4))}
	switch r.Intn(4) {
	case 0:
		s.GPUs, s.MilliGPU = 1, int64(1+r.Intn(10))*100
	case 1:
		s.GPUs, s.MilliGPU = 1+r.Intn(4), 1000
	case 2:
		s.GPUs, s.MilliGPU, s.Models = 1, 1000, []string{string(rune('A' + r.Intn(3)))}
	}
	return s
}

// TestFleetAnswersLikeAScan mixes placements and departures and compares every
// answer with that of a fleet that looks at all nodes.
func TestFleetAnswersLikeAScan(t *testing.T) {
	r := rand.New(rand.NewSource(5))
	for range 5 {
		seed := r.Int63()
		fast, slow := randomFleet(t, rand.New(rand.NewSource(seed)), 70), randomFleet(t, rand.New(rand.NewSource(seed)), 70)
		slow.ScanAll()
		var asks []Ask
		for range 12 {
			if a, err := fast.Ask(randomShape(r)); err == nil {
				asks = append(asks, a)
			}
		}
		typical := Typical(asks, 0.95)
		fast.SetScorer(NewLeastLoss(typical, fast))
		slow.SetScorer(NewLeastLoss(typical, slow))
		type held struct {
			ask  *Ask
			spot Spot
		}
		var holding []held
		for i := range 3000 {
			if len(holding) > 0 && r.Intn(5) == 0 {
				k := r.Intn(len(holding))
				fast.Take(holding[k].ask, holding[k].spot)
				slow.Take(holding[k].ask, holding[k].spot)
				holding[k] = holding[len(holding)-1]
				holding = holding[:len(holding)-1]
				continue
			}
			a := &asks[r.Intn(len(asks))]
			x, okX := fast.Place(a)
			y, okY := slow.Place(a)
			if x != y || okX != okY {
				t.Fatalf("placement %d: got %+v (%v), a scan gives %+v (%v)", i, x, okX, y, okY)
			}
			if okX {
				holding = append(holding, held{a, x})
			}
		}
		for _, h := range holding {
			fast.Take(h.ask, h.spot)
		}
		empty := randomFleet(t, rand.New(rand.NewSource(seed)), 70)
		for i := range fast.Loads {
			if fast.Loads[i] != empty.Loads[i] {
				t.Fatalf("node %d after all left: got %+v, want %+v", i, fast.Loads[i], empty.Loads[i])
			}
		}
	}
}

// TestFragmentationIsThePapers compares the tables with the definition.
func TestFragmentationIsThePapers(t *testing.T) {
	r := rand.New(rand.NewSource(6))
	f := randomFleet(t, r, 30)
	var asks []Ask
	for range 40 {
		if a, err := f.Ask(randomShape(r)); err == nil {
			asks = append(asks, a)
		}
	}
	typical := Typical(asks, 1)
	frag := NewFragmentation(typical, f.Models())
	f.SetScorer(NewFGD(frag))
	for range 300 {
		f.Place(&asks[r.Intn(len(asks))])
	}
	for i := range f.Loads {
		n := &f.Loads[i]
		var want int64
		for _, d := range typical {
			a := d.Ask
			if a.GPUs == 0 || !a.Fits(n) {
				want += d.Count * n.Idle
				continue
			}
			for _, free := range n.GPU[:n.Num] {
				if free < a.MilliGPU {
					want += d.Count * int64(free)
				}
			}
		}
		if got := frag.Node(n); got != want {
			t.Errorf("node %d: got %d, the definition gives %d", i, got, want)
		}
	}
}

func TestFleetGang(t *testing.T) {
	f := randomFleet(t, rand.New(rand.NewSource(7)), 20)
	f.SetScorer(NewLeastLoss(nil, f))
	a, err := f.Ask(Shape{MilliCPU: 1000, GPUs: 1, MilliGPU: 1000})
	if err != nil {
		t.Fatal(err)
	}
	before := append([]Load(nil), f.Loads...)
	gang := make([]Ask, 1000)
	for i := range gang {
		gang[i] = a
	}
	if _, ok := f.PlaceAll(gang); ok {
		t.Fatal("a thousand GPUs were found on twenty nodes")
	}
	for i := range before {
		if f.Loads[i] != before[i] {
			t.Fatalf("node %d was changed by a gang that was refused", i)
		}
	}
	if spots, ok := f.PlaceAll(gang[:10]); !ok || len(spots) != 10 {
		t.Errorf("got %d spots, %v; want 10", len(spots), ok)
	}
}

func TestFleetRefusesNonsense(t *testing.T) {
	f := randomFleet(t, rand.New(rand.NewSource(8)), 3)
	for _, s := range []Shape{
		{MilliCPU: -1}, {MilliCPU: 1 << 62}, {GPUs: 17, MilliGPU: 1000}, {GPUs: 1}, {GPUs: 1, MilliGPU: 1001}, {GPUs: 2, MilliGPU: 500}, {Memory: -5},
	} {
		if _, err := f.Ask(s); err == nil {
			t.Errorf("%+v was accepted", s)
		}
	}
	if _, err := f.Ask(Shape{GPUs: 1, MilliGPU: 10, Models: []string{"none"}}); !errors.Is(err, ErrNoModel) {
		t.Errorf("got %v, want ErrNoModel", err)
	}
	for _, n := range []FleetNode{{MilliCPU: -1}, {GPUs: 99}, {Memory: -1}} {
		if _, err := NewFleet([]FleetNode{n}, nil); err == nil {
			t.Errorf("%+v was accepted", n)
		}
	}
}
