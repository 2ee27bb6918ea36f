package place

import (
	"errors"
	"fmt"
	"slices"
)

// Bounds on a fleet.
const (
	MaxFleetGPUs   = 16 // on one node
	maxFleetNodes  = 1 << 20
	maxFleetModels = 64      // kinds of GPUs
	maxFleetMilli  = 1 << 40 // CPU of one node
)

// FleetNode is one node as the choice among many sees it: amounts only. The
// choice within the node is State's.
type FleetNode struct {
	Name     string
	MilliCPU int64
	Memory   int64 // any unit, the same in shapes
	GPUs     int
	Model    string // of all its GPUs
}

// Shape is what one piece of work asks of a fleet. Work that asks for the same
// amounts has the same shape.
type Shape struct {
	MilliCPU int64
	Memory   int64
	GPUs     int      // how many
	MilliGPU int64    // of each; below 1000 only with one GPU
	Models   []string // any of these; none: any model
}

// Scorer rates a node for a shape that fits it. It must depend on nothing but
// its arguments.
type Scorer interface {
	// Score returns how good the node is, at least 0, the higher the better,
	// and which GPU a shared request should take there.
	Score(n *Load, s *Ask) (score int32, gpu int)
}

// infeasible is the score of a node that a shape does not fit.
const infeasible = int32(-1)

// Fleet places shapes on many nodes: on the best by a Scorer, equal scores on
// the first in the order of the nodes. It keeps one tournament tree for each
// frequent shape and replays only the nodes that changed since the shape was
// last asked for, which gives the answer of a scan over all nodes at a small
// part of its cost. It is not safe for use by several goroutines.
type Fleet struct {
	Loads []Load

	models map[string]uint8
	scorer Scorer
	shapes map[shapeKey]int
	trees  []*tree // by shape; nil while it is rare
	asked  []int   // times each shape was asked for
	kept   int     // trees that exist
	log    []int32 // changed nodes, in order
	base   int     // position of log[0]
	last   []int   // by node: position of its last change
	full   bool
}

type shapeKey struct {
	cpu, memory, milli int64
	gpus               int
	models             uint64
}

// NewFleet returns a fleet of empty nodes in the order that decides ties.
func NewFleet(nodes []FleetNode, scorer Scorer) (*Fleet, error) {
	if len(nodes) > maxFleetNodes {
		return nil, fmt.Errorf("a fleet of %d nodes, at most %d are understood", len(nodes), maxFleetNodes)
	}
	f := &Fleet{models: map[string]uint8{}, scorer: scorer, shapes: map[shapeKey]int{}, last: make([]int, len(nodes))}
	for i := range f.last {
		f.last[i] = -1
	}
	if err := f.numberModels(nodes); err != nil {
		return nil, err
	}
	for _, n := range nodes {
		load, err := f.newLoad(n)
		if err != nil {
			return nil, err
		}
		f.Loads = append(f.Loads, load)
	}
	return f, nil
}

// numberModels numbers the GPU models in the order of their names, so that
// nothing depends on the order of the nodes.
func (f *Fleet) numberModels(nodes []FleetNode) error {
	var names []string
	for _, n := range nodes {
		names = append(names, n.Model)
	}
	slices.Sort(names)
	names = slices.Compact(names)
	if len(names) > maxFleetModels {
		return fmt.Errorf("a fleet of %d GPU models, at most %d are understood", len(names), maxFleetModels)
	}
	for i, name := range names {
		f.models[name] = uint8(i)
	}
	return nil
}

func (f *Fleet) newLoad(n FleetNode) (Load, error) {
	switch {
	case n.MilliCPU < 0 || n.MilliCPU > maxFleetMilli || n.Memory < 0:
		return Load{}, fmt.Errorf("node %q: %d thousandths of a CPU and %d of memory are out of range", n.Name, n.MilliCPU, n.Memory)
	case n.GPUs < 0 || n.GPUs > MaxFleetGPUs:
		return Load{}, fmt.Errorf("node %q: %d GPUs, at most %d are understood", n.Name, n.GPUs, MaxFleetGPUs)
	}
	load := Load{MilliCPU: n.MilliCPU, CPUs: n.MilliCPU, Memory: n.Memory, Num: int8(n.GPUs), Full: int8(n.GPUs), Idle: int64(n.GPUs) * 1000, model: f.models[n.Model]}
	for g := range n.GPUs {
		load.GPU[g] = 1000
	}
	return load, nil
}

// SetScorer changes how nodes are rated from the next placement on.
func (f *Fleet) SetScorer(s Scorer) {
	f.scorer = s
	clear(f.trees)
	f.kept = 0
}

// ScanAll makes every placement look at every node, to compare with.
func (f *Fleet) ScanAll() { f.full = true }

// ErrNoModel says that no node has a model that a shape asks for.
var ErrNoModel = errors.New("no node has such a GPU")

// Ask states a shape in the fleet's terms. A shape that asks for models which
// no node has is an error, as is one out of range.
func (f *Fleet) Ask(s Shape) (Ask, error) {
	switch {
	case s.MilliCPU < 0 || s.MilliCPU > maxFleetMilli || s.Memory < 0:
		return Ask{}, fmt.Errorf("%d thousandths of a CPU and %d of memory are out of range", s.MilliCPU, s.Memory)
	case s.GPUs < 0 || s.GPUs > MaxFleetGPUs:
		return Ask{}, fmt.Errorf("%d GPUs, at most %d are understood", s.GPUs, MaxFleetGPUs)
	case s.GPUs > 0 && (s.MilliGPU < 1 || s.MilliGPU > 1000):
		return Ask{}, fmt.Errorf("%d thousandths of a GPU is not between 1 and 1000", s.MilliGPU)
	case s.GPUs > 1 && s.MilliGPU != 1000:
		return Ask{}, fmt.Errorf("%d GPUs of %d thousandths: several GPUs are whole", s.GPUs, s.MilliGPU)
	}
	a := Ask{MilliCPU: s.MilliCPU, Memory: s.Memory, GPUs: s.GPUs}
	if s.GPUs == 0 {
		return a, nil
	}
	a.MilliGPU = int16(s.MilliGPU)
	for _, m := range s.Models {
		if i, ok := f.models[m]; ok {
			a.models |= 1 << i
		}
	}
	if len(s.Models) > 0 && a.models == 0 {
		return a, fmt.Errorf("%w: %v", ErrNoModel, s.Models)
	}
	return a, nil
}

// Spot is where a shape was placed.
type Spot struct {
	Node int
	GPU  int    // of a shared request
	mask uint32 // GPUs given whole
}

// Place puts one piece of work on the best node and reports where, or false
// where it fits none.
func (f *Fleet) Place(a *Ask) (Spot, bool) {
	spot, ok := f.Find(a)
	if ok {
		spot = f.Put(a, spot)
	}
	return spot, ok
}

// Put gives out a shape on a node that it fits, and returns the spot with what
// Take needs.
func (f *Fleet) Put(a *Ask, spot Spot) Spot {
	spot.mask = f.Loads[spot.Node].give(a, spot.GPU)
	f.changed(spot.Node)
	return spot
}

func (f *Fleet) changed(node int) {
	if f.kept == 0 {
		return
	}
	f.last[node] = f.base + len(f.log)
	f.log = append(f.log, int32(node))
	if len(f.log) > 4*len(f.Loads)+1024 {
		f.base += len(f.log)
		f.log = f.log[:0]
	}
}

// Find returns the best node for a shape without giving anything out.
func (f *Fleet) Find(a *Ask) (Spot, bool) {
	if len(f.Loads) == 0 {
		return Spot{}, false
	}
	t := f.treeFor(a)
	if t == nil {
		return f.scan(a)
	}
	f.replay(t, a)
	node, score := t.best()
	if score < 0 {
		return Spot{}, false
	}
	_, gpu := f.scorer.Score(&f.Loads[node], a)
	return Spot{Node: node, GPU: gpu}, true
}

func (f *Fleet) scan(a *Ask) (Spot, bool) {
	best, spot := infeasible, Spot{}
	for i := range f.Loads {
		if !a.Fits(&f.Loads[i]) {
			continue
		}
		if score, gpu := f.scorer.Score(&f.Loads[i], a); score > best {
			best, spot = score, Spot{Node: i, GPU: gpu}
		}
	}
	return spot, best >= 0
}

// When a shape gets a tree: from its third request on, while there is room.
const (
	treeAfter = 3
	maxTrees  = 1024
)

func (f *Fleet) treeFor(a *Ask) *tree {
	if f.full {
		return nil
	}
	key := shapeKey{a.MilliCPU, a.Memory, int64(a.MilliGPU), a.GPUs, a.models}
	i, ok := f.shapes[key]
	if !ok {
		if len(f.shapes) >= 1<<16 {
			return nil
		}
		i = len(f.asked)
		f.shapes[key] = i
		f.asked, f.trees = append(f.asked, 0), append(f.trees, nil)
	}
	f.asked[i]++
	if f.trees[i] == nil && f.asked[i] >= treeAfter && f.kept < maxTrees {
		f.trees[i] = newTree(len(f.Loads))
		f.trees[i].pos = -1
		f.kept++
	}
	return f.trees[i]
}

// replay brings a tree up to date: only the nodes changed since it was last
// used are rated again, each once.
func (f *Fleet) replay(t *tree, a *Ask) {
	end := f.base + len(f.log)
	if t.pos < f.base || end-t.pos > len(f.Loads) {
		for i := range f.Loads {
			t.leaf(i, f.rate(i, a))
		}
		t.build()
	} else {
		for p := t.pos; p < end; p++ {
			if node := int(f.log[p-f.base]); f.last[node] == p {
				t.set(node, f.rate(node, a))
			}
		}
	}
	t.pos = end
}

func (f *Fleet) rate(node int, a *Ask) int32 {
	n := &f.Loads[node]
	if !a.Fits(n) {
		return infeasible
	}
	score, _ := f.scorer.Score(n, a)
	return score
}

// Models returns how many GPU models the fleet's nodes have.
func (f *Fleet) Models() int { return len(f.models) }

// Take takes back what Put gave out.
func (f *Fleet) Take(a *Ask, spot Spot) {
	f.Loads[spot.Node].back(a, spot)
	f.changed(spot.Node)
}

// PlaceAll places all members of a gang, or none.
func (f *Fleet) PlaceAll(gang []Ask) ([]Spot, bool) {
	spots := make([]Spot, 0, len(gang))
	for i := range gang {
		spot, ok := f.Place(&gang[i])
		if !ok {
			for j, s := range spots {
				f.Take(&gang[j], s)
			}
			return nil, false
		}
		spots = append(spots, spot)
	}
	return spots, true
}
