package place

import (
	"math/bits"
	"slices"
)

// tree is a tournament over the scores of all nodes: each inner entry is the
// better of its two children.
type tree struct {
	score []int32 // 1 is the root, leaves from half on
	half  int
	pos   int // changes before this position are in it
}

func newTree(n int) *tree {
	half := 1 << bits.Len(uint(max(n, 1)-1))
	return &tree{score: slices.Repeat([]int32{infeasible}, 2*half), half: half}
}

func (t *tree) leaf(i int, score int32) { t.score[t.half+i] = score }

func (t *tree) build() {
	for i := t.half - 1; i > 0; i-- {
		t.score[i] = max(t.score[2*i], t.score[2*i+1])
	}
}

func (t *tree) set(i int, score int32) {
	at := t.half + i
	if t.score[at] == score {
		return
	}
	t.score[at] = score
	for at >>= 1; at > 0; at >>= 1 {
		best := max(t.score[2*at], t.score[2*at+1])
		if t.score[at] == best {
			return
		}
		t.score[at] = best
	}
}

// best returns the first of the nodes with the highest score.
func (t *tree) best() (node int, score int32) {
	at, score := 1, t.score[1]
	for at < t.half {
		at *= 2
		if t.score[at] != score {
			at++
		}
	}
	return at - t.half, score
}
