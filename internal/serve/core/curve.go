package core

import (
	"math/bits"
	"sync"
	"time"
)

// CurvePoint is how long runs of so many rows take.
type CurvePoint struct {
	Rows float64       `json:"rows"` // on average
	Time time.Duration `json:"timeNs"`
}

// curve is what runs of a model cost by their rows, learned from the runs. Points
// are of 1, 2, up to 4, up to 8 … rows. It is safe for concurrent use.
type curve struct {
	mu     sync.Mutex
	points [17]CurvePoint // Rows 0: no such run is known
	runs   int
}

// newCurve begins with what was learned before.
func newCurve(known []CurvePoint) *curve {
	c := &curve{}
	for _, p := range known {
		if p.Rows >= 1 && p.Time > 0 {
			*c.of(int64(p.Rows + 0.5)) = p
		}
	}
	return c
}

func (c *curve) of(rows int64) *CurvePoint {
	return &c.points[min(bits.Len64(uint64(max(rows, 1)-1)), len(c.points)-1)]
}

// observe counts a run.
func (c *curve) observe(rows int64, took time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.runs++
	p := c.of(rows)
	if p.Rows == 0 {
		*p = CurvePoint{float64(rows), took}
		return
	}
	p.Rows += (float64(rows) - p.Rows) / 8
	p.Time += (took - p.Time) / 8
}

// known are the points that were learned, by their rows.
func (c *curve) known() (known []CurvePoint) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.points {
		if p.Rows > 0 {
			known = append(known, p)
		}
	}
	return known
}

// at is what a run of so many rows costs; it is not ok beyond what is known. The
// caller holds mu.
func (c *curve) at(rows float64) (cost time.Duration, ok bool) {
	var below CurvePoint
	for _, p := range c.points {
		switch {
		case p.Rows == 0:
		case p.Rows < rows:
			below = p
		case below.Rows == 0:
			return p.Time, p.Rows == rows
		default:
			part := (rows - below.Rows) / (p.Rows - below.Rows)
			return below.Time + time.Duration(part*float64(p.Time-below.Time)), true
		}
	}
	return 0, false
}

// saves is how much computing it saves to add a row to a run of so many, instead of
// computing it alone: at most what it costs alone. It is not ok where that is not
// known.
func (c *curve) saves(rows int64) (saved time.Duration, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	alone, ok := c.at(1)
	if !ok {
		return 0, false
	}
	without, okWithout := c.at(float64(rows))
	with, okWith := c.at(float64(rows + 1))
	if !okWithout || !okWith {
		return alone, true
	}
	return min(max(alone-(with-without), 0), alone), true
}

// Bounds of what a curve decides.
const (
	// worse is by how much rows must cost more in a large run than in a smaller one
	// for the smaller one to be taken.
	worse = 1.25
	// retried is after how many runs a large one is tried all the same.
	retried = 32
)

// most is how many of the rows that wait make the cheapest run; 0 means all.
func (c *curve) most(waiting int64) int64 {
	if waiting < 2 {
		return 0
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	whole, ok := c.at(float64(waiting))
	if !ok || c.runs%retried == 0 {
		return 0
	}
	best, rows := worse, 0.0 // of the cost of a row in the whole run, inverted
	for _, p := range c.points {
		if p.Rows == 0 || p.Rows >= float64(waiting) {
			continue
		}
		if gain := float64(whole) / float64(waiting) / (float64(p.Time) / p.Rows); gain > best {
			best, rows = gain, p.Rows
		}
	}
	return int64(rows + 0.5)
}
