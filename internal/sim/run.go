package sim

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand"

	"oscine.dev/oscine/internal/place"
)

// columns is the number of integer percents of arrived demand, 0 to 130 and
// beyond where tuned higher.
const columns = 201

// typicalPart is the part of the pods that typical shapes cover.
const typicalPart = 0.95

// Experiment is one workload on one cluster under one policy.
type Experiment struct {
	Nodes  []place.FleetNode
	Pods   []Pod
	Policy string
	Tune   float64 // arrived GPU demand over capacity; 0 means 1.3
	// ScanAll rates every node for every pod instead of keeping tournament
	// trees, to compare with.
	ScanAll bool
}

// Curve is what one seed yields, by percent of arrived demand; NaN where no
// pod arrived near that percent. All are percents: of capacity, of capacity,
// and of the idle GPUs.
type Curve struct {
	Seed       int64
	Allocated  [columns]float64
	Fragmented [columns]float64
	FragOfIdle [columns]float64
	Placements int
	Dropped    int
}

// Run replays the workload for one seed, until ctx ends. progress, where not
// nil, is called now and then with the part done.
func (e *Experiment) Run(ctx context.Context, seed int64, progress func(done float64)) (*Curve, error) {
	if err := CheckPolicy(e.Policy); err != nil {
		return nil, err
	}
	r, err := e.prepare(seed)
	if err != nil {
		return nil, err
	}
	for i := range r.order {
		r.step(i)
		if i%512 != 0 {
			continue
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if progress != nil {
			progress(float64(i) / float64(len(r.order)))
		}
	}
	if progress != nil {
		progress(1)
	}
	return r.curve(seed), nil
}

// replay is the state of one run.
type replay struct {
	fleet                          *place.Fleet
	policy                         string
	rand                           *rand.Rand
	fits                           []int
	order                          []place.Ask
	possible                       []bool // false: no node has the GPU model asked for
	frag                           *place.Fragmentation
	nodeFrag                       []int64 // of each node
	capacity                       int64
	arrived, allocated, fragmented int64
	sums                           [columns]sample
	placements, dropped            int
}

type sample struct {
	n                   int
	alloc, frag, ofIdle float64
}

func (e *Experiment) prepare(seed int64) (*replay, error) {
	r := &replay{policy: e.Policy}
	for _, n := range e.Nodes {
		r.capacity += int64(n.GPUs) * 1000
	}
	if r.capacity == 0 {
		return nil, errors.New("the cluster has no GPUs; an experiment on GPU fragmentation needs some")
	}
	tune := e.Tune
	if tune == 0 {
		tune = 1.3
	}
	pods, rng, err := arrivals(e.Pods, r.capacity, tune, seed)
	if err != nil {
		return nil, err
	}
	r.rand = rng
	nodes := append([]place.FleetNode(nil), e.Nodes...)
	rng.Shuffle(len(nodes), func(i, j int) { nodes[i], nodes[j] = nodes[j], nodes[i] })
	fleet, err := place.NewFleet(nodes, nil)
	if err != nil {
		return nil, err
	}
	r.fleet = fleet
	ask := func(p Pod) (place.Ask, bool, error) {
		a, err := fleet.Ask(p.Shape)
		if errors.Is(err, place.ErrNoModel) {
			return a, false, nil
		}
		if err != nil {
			err = fmt.Errorf("pod %s: %w", p.Name, err)
		}
		return a, true, err
	}
	var asks []place.Ask
	for _, p := range e.Pods {
		a, possible, err := ask(p)
		if err != nil {
			return nil, err
		}
		if possible {
			asks = append(asks, a)
		}
	}
	for _, p := range pods {
		a, possible, _ := ask(p)
		r.order, r.possible = append(r.order, a), append(r.possible, possible)
	}
	typical := place.Typical(asks, typicalPart)
	r.frag = place.NewFragmentation(typical, fleet.Models())
	r.setScorer(typical)
	if e.ScanAll {
		fleet.ScanAll()
	}
	r.nodeFrag = make([]int64, len(nodes))
	for i := range fleet.Loads {
		r.nodeFrag[i] = r.frag.Node(&fleet.Loads[i])
		r.fragmented += r.nodeFrag[i]
	}
	return r, nil
}

func (r *replay) setScorer(typical []place.Demand) {
	switch r.policy {
	case "bestfit":
		r.fleet.SetScorer(bestFit{})
	case "dotprod":
		r.fleet.SetScorer(dotProd{})
	case "packing":
		r.fleet.SetScorer(packing{})
	case "clustering":
		r.fleet.SetScorer(clustering{})
	case "fgd":
		r.fleet.SetScorer(place.NewFGD(r.frag))
	case "oscine":
		r.fleet.SetScorer(place.NewLeastLoss(typical, r.fleet))
	}
}

// step lets one pod arrive.
func (r *replay) step(i int) {
	a := &r.order[i]
	demand := int64(a.GPUs) * int64(a.MilliGPU)
	r.arrived += demand
	var spot place.Spot
	ok := false
	switch {
	case !r.possible[i]:
	case r.policy == "random":
		spot, r.fits = randomPlace(r.fleet, a, r.rand, r.fits)
		if ok = spot.Node >= 0; ok {
			r.fleet.Put(a, spot)
		}
	default:
		spot, ok = r.fleet.Place(a)
	}
	if ok {
		r.placements++
		r.allocated += demand
		now := r.frag.Node(&r.fleet.Loads[spot.Node])
		r.fragmented += now - r.nodeFrag[spot.Node]
		r.nodeFrag[spot.Node] = now
	} else {
		r.dropped++
	}
	r.sample()
}

func (r *replay) sample() {
	column := int(math.RoundToEven(float64(r.arrived) / float64(r.capacity) * 100))
	if column >= columns {
		return
	}
	s := &r.sums[column]
	s.n++
	frag := float64(r.fragmented) / float64(max(r.frag.Total, 1))
	s.alloc += 100 * float64(r.allocated) / float64(r.capacity)
	s.frag += 100 * frag / float64(r.capacity)
	if idle := r.capacity - r.allocated; idle > 0 {
		s.ofIdle += 100 * frag / float64(idle)
	} else {
		s.ofIdle += 100
	}
}

// curve averages the samples of each column; a column without samples takes
// those of its neighbours.
func (r *replay) curve(seed int64) *Curve {
	c := &Curve{Seed: seed, Placements: r.placements, Dropped: r.dropped}
	for i := range columns {
		s := r.sums[i]
		if s.n == 0 {
			for _, j := range []int{i - 1, i + 1} {
				if j >= 0 && j < columns {
					s.n += r.sums[j].n
					s.alloc += r.sums[j].alloc
					s.frag += r.sums[j].frag
					s.ofIdle += r.sums[j].ofIdle
				}
			}
		}
		n := float64(s.n) // 0/0 is NaN: nothing arrived here
		c.Allocated[i], c.Fragmented[i], c.FragOfIdle[i] = s.alloc/n, s.frag/n, s.ofIdle/n
	}
	return c
}
