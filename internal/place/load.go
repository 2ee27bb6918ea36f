package place

import "math/bits"

// Load is what is free on one node of a fleet.
type Load struct {
	MilliCPU int64
	Memory   int64
	Idle     int64 // free thousandths over all GPUs
	CPUs     int64 // capacity, in thousandths
	Num      int8  // GPUs
	Full     int8  // GPUs of which nothing is given out
	model    uint8
	Tags     [2 + MaxFleetGPUs]uint16 // placements by their GPU count, shared ones at 1
	GPU      [MaxFleetGPUs]int16      // free thousandths
}

// Tag is the index of a shape in Load.Tags: 0 no GPU, 1 a shared one, 1 + n for n whole
// ones.
func (s *Ask) Tag() int {
	switch {
	case s.GPUs == 0:
		return 0
	case s.MilliGPU < 1000:
		return 1
	}
	return 1 + s.GPUs
}

// Ask is a shape as scorers see it.
type Ask struct {
	MilliCPU int64
	Memory   int64
	GPUs     int
	MilliGPU int16
	models   uint64 // by index; 0: any
}

// Accepts reports whether the node's model is among those asked for.
func (s *Ask) Accepts(n *Load) bool { return s.models == 0 || s.models>>n.model&1 == 1 }

// Fits reports whether the shape fits the node now.
func (s *Ask) Fits(n *Load) bool {
	if s.MilliCPU > n.MilliCPU || s.Memory > n.Memory {
		return false
	}
	if s.GPUs == 0 {
		return true
	}
	if !s.Accepts(n) {
		return false
	}
	if s.MilliGPU >= 1000 {
		return int(n.Full) >= s.GPUs
	}
	for _, free := range n.GPU[:n.Num] {
		if free >= s.MilliGPU {
			return true
		}
	}
	return false
}

// give takes the shape out of the node's load; gpu names the GPU of a shared
// request, whole GPUs are taken in order and returned as a mask.
func (n *Load) give(s *Ask, gpu int) (mask uint32) {
	n.MilliCPU -= s.MilliCPU
	n.Memory -= s.Memory
	n.Tags[s.Tag()]++
	switch {
	case s.GPUs == 0:
	case s.MilliGPU < 1000:
		n.take(gpu, s.MilliGPU)
	default:
		left := s.GPUs
		for g := 0; left > 0 && g < int(n.Num); g++ {
			if n.GPU[g] == 1000 {
				n.take(g, 1000)
				mask |= 1 << g
				left--
			}
		}
	}
	return mask
}

// back undoes give.
func (n *Load) back(s *Ask, spot Spot) {
	n.MilliCPU += s.MilliCPU
	n.Memory += s.Memory
	n.Tags[s.Tag()]--
	if s.GPUs > 0 && s.MilliGPU < 1000 {
		n.take(spot.GPU, -s.MilliGPU)
		if n.GPU[spot.GPU] == 1000 {
			n.Full++
		}
	}
	for m := spot.mask; m != 0; m &= m - 1 {
		n.take(bits.TrailingZeros32(m), -1000)
		n.Full++
	}
}

func (n *Load) take(gpu int, milli int16) {
	if n.GPU[gpu] == 1000 {
		n.Full--
	}
	n.GPU[gpu] -= milli
	n.Idle -= int64(milli)
}
