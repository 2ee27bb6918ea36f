package place

import (
	"cmp"
	"math/bits"
	"slices"
)

// LeastLoss is the default scorer. A node is the better the less later work
// loses by the placement, counted in thousandths of a GPU:
//
//   - fragmentation: idle GPU that typical shapes cannot use any more, as FGD
//     counts it;
//   - stranding: idle GPU that no CPU is left for. A node with c thousandths of
//     CPU and g of idle GPU can give work that needs r of CPU for each of GPU
//     at most c/r, the rest is stranded; weighted over the typical shapes.
//     FGD asks only whether the next shape fits, and so fills nodes with work
//     that needs much CPU until their GPUs starve;
//   - scarcity: GPUs of a model that captive work, which can go nowhere else,
//     will need.
//
// Losses are compared in steps, and equal ones go to the first node, which
// fills nodes one by one as FGD's truncation does.
type LeastLoss struct {
	frag   *Fragmentation
	models []modelLoss
}

// modelLoss is what a GPU model's nodes are rated by.
type modelLoss struct {
	price float64 // loss for each thousandth of GPU taken
	// Typical shapes by rising CPU need for each thousandth of GPU; share and
	// reach are sums from an index to the end: of the shapes' part of the GPU
	// demand, and of that part over their need.
	need, share, reach []float64
}

const (
	lossStep   = 120.0   // thousandths of a GPU that count as equal
	scarceFrom = 0.3     // captive demand over capacity from which a model has a price,
	scarceFull = 1.0     // and where the price is full
	fullPrice  = 0.5     // thousandths of a GPU lost for each one taken of a scarce model
	mostLoss   = 1 << 20 // above any loss in steps
)

// NewLeastLoss returns the scorer for a typical demand on a fleet.
func NewLeastLoss(typical []Demand, f *Fleet) *LeastLoss {
	l := &LeastLoss{frag: NewFragmentation(typical, f.Models())}
	prices := scarcity(typical, f)
	for m := range f.Models() {
		l.models = append(l.models, newModelLoss(typical, uint8(m), prices[m]))
	}
	return l
}

func newModelLoss(typical []Demand, model uint8, price float64) modelLoss {
	m := modelLoss{price: price}
	type part struct{ need, weight float64 }
	var parts []part
	var total float64
	for _, d := range typical {
		gpu := d.Ask.milliGPUs()
		if gpu == 0 || !d.Ask.Accepts(&Load{model: model}) {
			continue
		}
		p := part{need: float64(d.Ask.MilliCPU) / float64(gpu), weight: float64(d.Count * gpu)}
		parts = append(parts, p)
		total += p.weight
	}
	slices.SortFunc(parts, func(a, b part) int { return cmp.Compare(a.need, b.need) })
	n := len(parts)
	m.need, m.share, m.reach = make([]float64, n), make([]float64, n+1), make([]float64, n+1)
	for i := n - 1; i >= 0; i-- {
		m.need[i] = parts[i].need
		m.share[i] = m.share[i+1] + parts[i].weight/total
		m.reach[i] = m.reach[i+1]
		if parts[i].need > 0 {
			m.reach[i] += parts[i].weight / total / parts[i].need
		}
	}
	return m
}

// milliGPUs is the GPU demand over all GPUs.
func (s *Ask) milliGPUs() int64 { return int64(s.GPUs) * int64(s.MilliGPU) }

// stranded is the idle GPU that the CPU left cannot serve.
func (m *modelLoss) stranded(cpu, idle int64) float64 {
	c, g := float64(cpu), float64(idle)
	lo, hi := 0, len(m.need)
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if m.need[mid]*g > c {
			hi = mid
		} else {
			lo = mid + 1
		}
	}
	return g*m.share[lo] - c*m.reach[lo]
}

// Score implements Scorer.
func (l *LeastLoss) Score(n *Load, a *Ask) (int32, int) {
	m := &l.models[n.model]
	gpu := a.milliGPUs()
	after, best := l.frag.After(n, a)
	loss := float64(after-l.frag.Node(n)) / float64(max(l.frag.Total, 1))
	loss += m.stranded(n.MilliCPU-a.MilliCPU, n.Idle-gpu) - m.stranded(n.MilliCPU, n.Idle)
	loss += m.price * float64(gpu)
	return mostLoss - int32(loss/lossStep), best
}

// scarcity prices each model by the captive demand on it: over every set of
// models that work is bound to, the demand that cannot leave the set over the
// set's capacity, where the demand in all equals the fleet's capacity.
func scarcity(typical []Demand, f *Fleet) []float64 {
	prices := make([]float64, f.Models())
	capacity := make([]float64, f.Models())
	var total, demand float64
	for i := range f.Loads {
		capacity[f.Loads[i].model] += float64(f.Loads[i].Num) * 1000
		total += float64(f.Loads[i].Num) * 1000
	}
	for _, d := range typical {
		demand += float64(d.Count * d.Ask.milliGPUs())
	}
	if demand == 0 {
		return prices
	}
	for _, set := range boundSets(typical) {
		var room, captive float64
		for m := set; m != 0; m &= m - 1 {
			room += capacity[bits.TrailingZeros64(m)]
		}
		if room == 0 || room >= 0.95*total {
			continue // nearly the whole fleet: not scarcer than anything else
		}
		for _, d := range typical {
			if d.Ask.models != 0 && d.Ask.models&^set == 0 {
				captive += float64(d.Count*d.Ask.milliGPUs()) / demand * total
			}
		}
		price := fullPrice * min(1, max(0, (captive/room-scarceFrom)/(scarceFull-scarceFrom)))
		for m := set; m != 0; m &= m - 1 {
			i := bits.TrailingZeros64(m)
			prices[i] = max(prices[i], price)
		}
	}
	return prices
}

// maxBoundSets bounds the sets of models whose unions are looked at.
const maxBoundSets = 64

// boundSets lists the sets of models that typical shapes are bound to, and the
// unions of any two, in a fixed order.
func boundSets(typical []Demand) []uint64 {
	var base []uint64
	for _, d := range typical {
		if d.Ask.models != 0 && !slices.Contains(base, d.Ask.models) && len(base) < maxBoundSets {
			base = append(base, d.Ask.models)
		}
	}
	var sets []uint64
	for i, a := range base {
		for _, b := range base[i:] {
			sets = append(sets, a|b)
		}
	}
	slices.Sort(sets)
	return slices.Compact(sets)
}
