package core

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
)

// Routing says which requests a version of a model gets of those that name no
// version. Those that name one go to it.
type Routing struct {
	// Traffic is its percentage; nil: it gets what others leave, if it is the
	// newest such version that is ready.
	Traffic *int
	// Shadow has it compute what others answer too; its own answers are counted
	// and thrown away.
	Shadow bool
}

func (r *Routing) check() error {
	if r.Traffic != nil && (*r.Traffic < 0 || *r.Traffic > 100) {
		return fmt.Errorf("%d percent of the requests: choose 0 to 100", *r.Traffic)
	}
	if r.Traffic != nil && r.Shadow {
		return errors.New("a shadow answers no requests, and has no percentage of them")
	}
	return nil
}

// Route changes which requests a model gets, at once.
func (r *Registry) Route(name string, to Routing) error {
	if err := to.check(); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.models[name]
	if m == nil {
		return fmt.Errorf("%w: %s", ErrNotFound, name)
	}
	m.Routing = to
	r.changes.broadcast()
	return nil
}

// free refuses a model whose name and version another one has. The caller holds
// r.mu.
func (r *Registry) free(m *Model) error {
	if r.closed {
		return errors.New("the registry is closed")
	}
	for _, other := range r.served[m.ServedAs] {
		if other.Version == m.Version && other.Name != m.Name {
			return fmt.Errorf("version %s of %s is model %s: choose another spec.version or spec.servedAs", m.Version, m.ServedAs, other.Name)
		}
	}
	return nil
}

// enter lets requests find a model. The caller holds r.mu.
func (r *Registry) enter(m *model) {
	r.models[m.Name] = m
	list := append(slices.Clone(r.served[m.ServedAs]), m)
	slices.SortFunc(list, func(a, b *model) int {
		return cmp.Or(compareVersions(b.Version, a.Version), strings.Compare(a.Name, b.Name))
	})
	r.served[m.ServedAs] = list
	r.changes.broadcast()
}

// withdraw lets requests find a model no more. The caller holds r.mu.
func (r *Registry) withdraw(m *model) {
	defer r.changes.broadcast()
	delete(r.models, m.Name)
	list := slices.DeleteFunc(slices.Clone(r.served[m.ServedAs]), func(other *model) bool { return other == m })
	if len(list) == 0 {
		delete(r.served, m.ServedAs)
		return
	}
	r.served[m.ServedAs] = list
}

// compareVersions orders versions as people count: 9 before 10, v1.9 before
// v1.10.
func compareVersions(a, b string) int {
	for a != "" && b != "" {
		x, y := digits(a), digits(b)
		if x > 0 && y > 0 {
			left, right := strings.TrimLeft(a[:x], "0"), strings.TrimLeft(b[:y], "0")
			if c := cmp.Or(cmp.Compare(len(left), len(right)), strings.Compare(left, right)); c != 0 {
				return c
			}
			a, b = a[x:], b[y:]
			continue
		}
		if a[0] != b[0] {
			return cmp.Compare(a[0], b[0])
		}
		a, b = a[1:], b[1:]
	}
	return cmp.Compare(len(a), len(b))
}

// digits is how many digits a text begins with.
func digits(s string) int { return len(s) - len(strings.TrimLeft(s, "0123456789")) }

// asked finds a model by the name that a client uses; version "" means the newest
// that answers.
func (r *Registry) asked(name, version string) (*model, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.find(name, version)
}

// find is asked, for callers that hold r.mu.
func (r *Registry) find(name, version string) (*model, error) {
	list := r.served[name]
	if len(list) == 0 {
		return nil, fmt.Errorf("%w: no model %q is served here", ErrNotFound, name)
	}
	if version == "" {
		return newest(list), nil
	}
	var versions []string
	for _, m := range list {
		if m.Version == version {
			return m, nil
		}
		versions = append(versions, strconv.Quote(m.Version))
	}
	return nil, fmt.Errorf("%w: model %q is served in version %s, not %q", ErrNotFound, name, strings.Join(versions, ", "), version)
}

// newest is the version that stands for all: the newest that takes what others
// leave and is ready, or the best that there is.
func newest(list []*model) *model {
	for _, fits := range []func(*model) bool{
		func(m *model) bool { return m.takesRest() && m.answers() },
		func(m *model) bool { return !m.Shadow && m.answers() },
		func(m *model) bool { return m.takesRest() },
	} {
		if i := slices.IndexFunc(list, fits); i >= 0 {
			return list[i]
		}
	}
	return list[0]
}

func (m *model) takesRest() bool { return !m.Shadow && m.Traffic == nil }

// answers reports whether a model takes requests, on demand before it is loaded too.
func (m *model) answers() bool { return m.open.Load() || m.demand != nil && !m.failed() }

// use finds the model that is to answer a request, which done ends.
func (r *Registry) use(ctx context.Context, q *Request) (m *model, shadows []*model, err error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if m, err = r.find(q.Model, q.Version); err != nil {
		return nil, nil, err
	}
	random, list := rand.IntN, r.served[q.Model]
	if q.Version != "" || len(list) == 1 {
		list = nil
	}
	if q.Sequence.ID != "" { // all of a sequence go to one version, and no copies of them
		random = func(n int) int { return int(q.Sequence.hash(ctx) % uint64(n)) }
	}
	if len(list) > 0 {
		m = divide(list, m, random)
	}
	if q.step && m.Ensemble != nil { // it might be the one that asks
		return nil, nil, fmt.Errorf("%w: %s is an ensemble itself: name its steps instead, or a modelVersion that is none", ErrNotReady, m.Name)
	}
	if q.Sequence.ID == "" {
		for _, s := range list {
			if s.Shadow && s.answers() && !(q.step && s.Ensemble != nil) && s.shadowed.TryAcquire(1) {
				s.users.Add(1)
				shadows = append(shadows, s)
			}
		}
	}
	m.users.Add(1)
	return m, shadows, nil
}

// divide chooses by the percentages of the versions that are ready; rest gets
// what they leave.
func divide(list []*model, rest *model, random func(int) int) *model {
	sum := 0
	var parts []*model
	for _, m := range list {
		if m.Traffic != nil && *m.Traffic > 0 && m.answers() {
			parts = append(parts, m)
			sum += *m.Traffic
		}
	}
	all := max(sum, 100)
	if !rest.takesRest() && sum > 0 {
		all = sum // nobody takes a rest
	}
	at := random(all)
	for _, m := range parts {
		if at -= *m.Traffic; at < 0 {
			return m
		}
	}
	return rest
}
