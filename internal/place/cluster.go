package place

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
)

// Cluster is many machines under one engine. A node is chosen by the very
// decision that the node itself would make, so that nothing is placed and then
// refused. For traces of thousands of nodes of which only amounts are known
// there is Fleet.
type Cluster struct {
	nodes []*State
}

// NewCluster returns a cluster of the given states. Ties go to the first.
func NewCluster(nodes ...*State) *Cluster { return &Cluster{nodes: nodes} }

// Node returns the state of the named machine, or nil.
func (c *Cluster) Node(name string) *State {
	i := slices.IndexFunc(c.nodes, func(s *State) bool { return s.machine.Name == name })
	if i < 0 {
		return nil
	}
	return c.nodes[i]
}

// Place gives the request a place on the best node that admits it and returns
// the node's name. The refusal names for every node the first constraint that fails there.
func (c *Cluster) Place(ctx context.Context, req Request) (node string, p Placement, err error) {
	best, placement, err := c.find(ctx, &req)
	if err != nil {
		return "", Placement{}, err
	}
	best.commit(placement)
	return best.machine.Name, *placement, nil
}

// find looks at every node: the placement that touches the fewest and nearest
// NUMA nodes wins, then the node that the request leaves the least of.
func (c *Cluster) find(ctx context.Context, req *Request) (*State, *Placement, error) {
	var best *State
	var chosen *Placement
	var bestRank nodeRank
	refusal := &Unsatisfied{Request: req.Name, Machine: "any node"}
	for _, s := range c.nodes {
		p, err := s.choose(ctx, req)
		var u *Unsatisfied
		if errors.As(err, &u) {
			refusal.add(u)
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		if rank := s.rankOf(p); best == nil || rank.compare(bestRank) < 0 {
			best, chosen, bestRank = s, p, rank
		}
	}
	if best == nil {
		return nil, nil, refusal
	}
	return best, chosen, nil
}

// maxNodesWorded bounds the nodes that a refusal names.
const maxNodesWorded = 16

func (u *Unsatisfied) add(node *Unsatisfied) {
	if len(u.Failures) >= maxNodesWorded || len(node.Failures) == 0 {
		return
	}
	first := node.Failures[0]
	u.Failures = append(u.Failures, Failure{
		Constraint: fmt.Sprintf("node %s, %s", node.Machine, first.Constraint), Problem: first.Problem, Remedy: first.Remedy,
	})
}

// nodeRank orders nodes for one request.
type nodeRank struct {
	spans   int     // NUMA nodes touched
	devices int     // free devices left that the request has no use for
	left    float64 // free part of the node's CPUs and memory
}

func (a nodeRank) compare(b nodeRank) int {
	return cmp.Or(cmp.Compare(a.spans, b.spans), cmp.Compare(a.devices, b.devices), cmp.Compare(a.left, b.left))
}

func (s *State) rankOf(p *Placement) nodeRank {
	r := nodeRank{spans: len(p.NUMANodes)}
	for i := range s.use {
		if s.use[i].idle() {
			r.devices++
		}
	}
	r.devices -= len(p.Devices)
	var cpu, allCPU, memory, allMemory float64
	for i := range s.cells {
		cpu += float64(s.cells[i].free())
		allCPU += float64(len(s.cells[i].cpus)) * 1000
	}
	for n := range s.nodes {
		memory += float64(s.memory[n])
		allMemory += float64(s.nodes[n].Memory)
	}
	if allCPU > 0 {
		r.left += (cpu - float64(p.Request.MilliCPU)) / allCPU
	}
	if allMemory > 0 {
		r.left += (memory - float64(p.Request.Memory)) / allMemory
	}
	return r
}

// PlaceAll places a gang over the nodes, all members or none, and returns the
// names of their nodes beside the placements, in the order of the requests.
func (c *Cluster) PlaceAll(ctx context.Context, reqs []Request) ([]string, []Placement, error) {
	nodes, placements := make([]string, len(reqs)), make([]Placement, len(reqs))
	order := hardestFirst(reqs)
	for n, i := range order {
		node, p, err := c.Place(ctx, reqs[i])
		if err != nil {
			for _, j := range order[:n] {
				c.Node(nodes[j]).Release(reqs[j].Name)
			}
			return nil, nil, err
		}
		nodes[i], placements[i] = node, p
	}
	return nodes, placements, nil
}
