package place

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
)

// matched is the outcome of a selector over all devices.
type matched struct {
	devices []int
	missing string // attribute that no device has, where that is why none matches
	err     error  // of the last device on which the expression failed
}

// matchSelectors evaluates the selectors of a request, so that all that follows
// finds them evaluated. It fails only where ctx ends.
func (s *State) matchSelectors(ctx context.Context, req *Request) error {
	if req.CPUs.String() != "" {
		if _, err := s.selectedCPUs(ctx, req.CPUs); err != nil {
			return err
		}
	}
	for i := range req.Devices {
		if _, err := s.matching(ctx, req.Devices[i].Selector); err != nil {
			return err
		}
	}
	return nil
}

// matchDevices lists the free devices for each request, and what is missing.
func (s *State) matchDevices(req *Request) ([][]int, []Failure) {
	var failures []Failure
	match := make([][]int, len(req.Devices))
	for r := range req.Devices {
		dr := &req.Devices[r]
		all, err := s.matching(context.Background(), dr.Selector) // known since matchSelectors
		all.err = cmp.Or(all.err, err)
		ask, refusal := req.deviceAsk(r), ""
		for _, d := range all.devices {
			_, _, why := s.use[d].grant(&s.machine.Devices[d], ask)
			switch {
			case why == "":
				match[r] = append(match[r], d)
			case refusal == "":
				refusal = s.machine.Devices[d].ID + ": " + why
			}
		}
		if len(match[r]) < dr.count() {
			failures = append(failures, s.deviceShortage(dr, all, len(match[r]), refusal))
		}
	}
	return match, failures
}

// matching evaluates a selector once per machine. It fails only where ctx ends.
func (s *State) matching(ctx context.Context, sel *Selector) (matched, error) {
	if m, ok := s.matches.of(sel); ok {
		return m, nil
	}
	var m matched
	within, cancel := context.WithTimeout(ctx, maxMatchingTime)
	defer cancel()
	budget := uint64(maxMatchingCost)
	for d := range s.machine.Devices {
		ok, err := sel.match(within, &s.machine.Devices[d], &budget)
		switch {
		case ctx.Err() != nil:
			return m, ctx.Err()
		case tooDear(within, err) != nil:
			m = matched{err: tooDear(within, err)}
			s.matches.keep(sel, m)
			return m, nil
		case errors.Is(err, errNoAttribute):
			m.missing = err.Error()
		case err != nil:
			m.err = err
		case ok:
			m.devices = append(m.devices, d)
		}
	}
	s.matches.keep(sel, m)
	return m, nil
}

// tooDear returns the error of an expression that costs too much to go on with.
func tooDear(within context.Context, err error) error {
	if within.Err() != nil {
		return fmt.Errorf("%w: more than %v", errCost, maxMatchingTime)
	}
	if errors.Is(err, errCost) {
		return err
	}
	return nil
}

// maxSelectorsKept bounds the selectors whose matches are remembered.
const maxSelectorsKept = 4096

// memo remembers what selectors match on a machine, for a State and its copies,
// which several goroutines may search at once.
type memo[T any] struct {
	mu         sync.Mutex
	bySelector map[string]T
}

func (r *memo[T]) of(sel *Selector) (m T, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	m, ok = r.bySelector[sel.String()]
	return m, ok
}

func (r *memo[T]) keep(sel *Selector, m T) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.bySelector == nil || len(r.bySelector) >= maxSelectorsKept {
		r.bySelector = map[string]T{}
	}
	r.bySelector[sel.String()] = m
}

// selectorErr says what is wrong with the request's selector of CPUs.
func (o *offer) selectorErr() error {
	if o.req.CPUs.String() == "" {
		return nil
	}
	m, _ := o.s.cpuMatches.of(o.req.CPUs)
	return m.err
}
