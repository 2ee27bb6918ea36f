package allocate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"oscine.dev/oscine/internal/durable"
	"oscine.dev/oscine/internal/hardware"
	"oscine.dev/oscine/internal/place"
)

// Shares carries out on devices what placement decided about them, through the
// drivers' programs: whole devices, partitions, MPS, time slices. What it did
// is kept in a file that a reboot deletes, as it ends partitions and MPS
// daemons, so that a daemon that starts again knows which are its own. It is
// safe for concurrent use.
type Shares struct {
	dir     string // one folder for each device, and the file
	log     *slog.Logger
	sharer  func(address string) *hardware.Driver // nil where nobody can divide the device
	machine func() *hardware.Machine              // not nil: the placer looks first
	refresh func(context.Context)                 // the map and the CDI specifications

	mu   sync.Mutex // held while devices are divided
	held []share
}

// OpenShares reads what an earlier daemon did, from dir. refresh brings the map
// of the hardware and the CDI specifications up to date after a device was
// divided.
func OpenShares(dir string, drivers *Drivers, refresh func(context.Context), log *slog.Logger) (*Shares, error) {
	s := &Shares{dir: dir, log: log, sharer: drivers.sharer, machine: drivers.Machine, refresh: refresh}
	return s, s.load()
}

// share is a part of a device that an object has.
type share struct {
	Object  string            `json:"object"`  // its ID
	Address string            `json:"address"` // of the device
	Class   place.Class       `json:"class"`
	Grant   place.DeviceGrant `json:"grant"`
	// Gone says that the object no longer has it, and that it could not be
	// taken back yet.
	Gone bool `json:"gone,omitempty"`
}

func (s *share) same(o *share) bool {
	return s.Object == o.Object && s.Address == o.Address && s.Grant.Sharing == o.Grant.Sharing && s.Grant.Profile == o.Grant.Profile &&
		s.Grant.Start == o.Grant.Start && s.Grant.Milli == o.Grant.Milli && s.Grant.Memory == o.Grant.Memory && s.Class == o.Class
}

// sharesFile is below dir, maxShares bounds what is read of it.
const (
	sharesFile = "shares.json"
	maxShares  = 1 << 20
)

// load reads what an earlier daemon did.
func (s *Shares) load() error {
	if err := os.MkdirAll(s.dir, 0o711); err != nil {
		return fmt.Errorf("make the folder of shared devices: %w", err)
	}
	raw, err := os.ReadFile(filepath.Join(s.dir, sharesFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err == nil && len(raw) > maxShares {
		err = fmt.Errorf("%d bytes", len(raw))
	}
	if err == nil {
		err = json.Unmarshal(raw, &s.held)
	}
	if err != nil {
		// The node comes up; what an earlier daemon made counts as somebody
		// else's until workloads of ours ask for just that again.
		s.log.Error("it is not known which devices an earlier daemon shared", "error", err)
		s.held = nil
	}
	return nil
}

// store writes what is done, whole or not at all. The caller holds s.mu.
func (s *Shares) store() error {
	raw, err := json.Marshal(s.held)
	if err != nil {
		return err
	}
	file := filepath.Join(s.dir, sharesFile)
	if err := durable.WriteFile(file, raw, 0o600); err != nil {
		return fmt.Errorf("note which devices are shared: %w", err)
	}
	return nil
}

// Prepare has the devices of a placement divided as it says, before its
// container starts, and adds to the placement what the container needs. A
// device that is divided that way already is left alone. stop is called before
// a part is taken back that the object's running container may use. On an
// error the object has nothing.
func (s *Shares) Prepare(ctx context.Context, id string, p *Placement, stop func() error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	wanted, err := s.wanted(id, p)
	if err != nil {
		return err
	}
	changed := slices.ContainsFunc(s.held, func(h share) bool {
		return h.Object == id && !slices.ContainsFunc(wanted, func(w share) bool { return w.same(&h) })
	})
	if changed {
		if err := errors.Join(stop(), s.drop(ctx, func(h *share) bool { return h.Object == id })); err != nil {
			return err
		}
	}
	if len(wanted) == 0 {
		return nil
	}
	answers := map[place.DeviceGrant]hardware.ShareAnswer{}
	for i := range wanted {
		if answers[wanted[i].Grant], err = s.carryOut(ctx, &wanted[i]); err != nil {
			break
		}
	}
	if err == nil {
		err = s.store()
	}
	if err == nil {
		err = s.equip(ctx, p, answers)
	}
	if err != nil {
		err = errors.Join(err, stop(), s.drop(ctx, func(h *share) bool { return h.Object == id }))
	}
	return err
}

// wanted are the parts that a placement needs carried out. Devices that nobody
// can divide are given as they are, whole or in turns.
func (s *Shares) wanted(id string, p *Placement) ([]share, error) {
	var all []share
	m := s.machine()
	mps := 0
	for _, g := range p.Placement.Devices {
		a := m.Accelerator(g.ID)
		if a == nil || s.sharer(a.Address) == nil {
			if g.Sharing == place.Partitions || g.Sharing == place.MPS {
				return nil, fmt.Errorf("%s cannot be shared by %s now: no driver's program divides it; install its driver pack (oscine pack install) and see oscine hardware", g.ID, g.Sharing)
			}
			continue
		}
		if g.Sharing == place.MPS {
			mps++
		}
		all = append(all, share{Object: id, Address: a.Address, Class: p.Request.Class, Grant: g})
	}
	if mps > 1 {
		return nil, fmt.Errorf("%s asks for shares of %d devices by MPS: one process can use one; ask for one share, for partitions or for whole devices", id, mps)
	}
	return all, nil
}

// carryOut has one part made. The caller holds s.mu.
func (s *Shares) carryOut(ctx context.Context, w *share) (answer hardware.ShareAnswer, err error) {
	others := s.others(w)
	for _, o := range others {
		if o.Grant.Sharing != w.Grant.Sharing || w.Grant.Sharing == place.Exclusive {
			return answer, fmt.Errorf("%s is still held by %s, which is being stopped: this waits for it", w.Grant.ID, o.Object)
		}
	}
	r := hardware.ShareRequest{Device: w.Address, Directory: s.folder(w.Grant.ID)}
	switch w.Grant.Sharing {
	case place.Partitions:
		r.Action, r.Profile, r.Start = hardware.SharePartition, w.Grant.Profile, w.Grant.Start
	case place.MPS:
		r.Action = hardware.ShareMPS
		user := amount(&w.Grant)
		r.Limit, r.User = most(append(others, *w)), &user
	case place.Exclusive:
		// One process only, where that was promised: work of other classes
		// may be several processes on its own device.
		r.Action = hardware.ShareWhole
		if w.Class == place.Realtime {
			r.Action = hardware.ShareExclusive
		}
	default:
		r.Action = hardware.ShareWhole
	}
	if answer, err = s.ask(ctx, w, r); err != nil {
		return answer, err
	}
	if i := slices.IndexFunc(s.held, func(h share) bool { return h.same(w) }); i >= 0 {
		s.held[i].Gone = false
	} else {
		s.held = append(s.held, *w)
		s.log.Info("a device is shared", "device", w.Grant.ID, "object", w.Object, "sharing", w.Grant.Sharing, "why", w.Grant.Why)
	}
	switch {
	case w.Grant.Sharing == place.Partitions && answer.Partition == nil:
		err = fmt.Errorf("%s: its driver's program made no partition", w.Grant.ID)
	case w.Grant.Sharing == place.MPS && len(answer.Env)+len(answer.Mounts) == 0:
		err = fmt.Errorf("%s: its driver's program does not say how a container uses its share: it is of another version than this node, install its pack again", w.Grant.ID)
	}
	return answer, err
}

func (s *Shares) ask(ctx context.Context, w *share, r hardware.ShareRequest) (hardware.ShareAnswer, error) {
	driver := s.sharer(w.Address)
	if driver == nil {
		return hardware.ShareAnswer{}, fmt.Errorf("%s: the driver's program that divides it is gone: install its pack again", w.Grant.ID)
	}
	answer, err := driver.Share(ctx, r)
	if err != nil {
		return answer, fmt.Errorf("%s: %s was refused: %w", w.Grant.ID, r.Action, err)
	}
	return answer, nil
}

// others are the parts of the same device that other objects have.
func (s *Shares) others(w *share) []share {
	var all []share
	for _, h := range s.held {
		if h.Address == w.Address && h.Object != w.Object {
			all = append(all, h)
		}
	}
	return all
}

// amount is what a grant is in the words of drivers.
func amount(g *place.DeviceGrant) hardware.ShareAmount {
	return hardware.ShareAmount{Percent: g.Percent(), Memory: hardware.Bytes(max(g.Memory, 0)), LowPriority: g.LowPriority}
}

// most is the most that any of them may get, which nobody's own environment can
// go beyond.
func most(all []share) (limit hardware.ShareAmount) {
	for i := range all {
		one := amount(&all[i].Grant)
		limit.Percent, limit.Memory = max(limit.Percent, one.Percent), max(limit.Memory, one.Memory)
	}
	return limit
}

// folder is a device's own, where a driver's program keeps what its users share.
func (s *Shares) folder(device string) string { return filepath.Join(s.dir, device) }

// equip adds to a placement what its container needs of shared devices.
func (s *Shares) equip(ctx context.Context, p *Placement, answers map[place.DeviceGrant]hardware.ShareAnswer) error {
	if slices.ContainsFunc(p.Placement.Devices, func(g place.DeviceGrant) bool { return g.Sharing == place.Partitions }) {
		s.refresh(ctx)
	}
	cdi := cdiNames(s.machine())
	p.Devices, p.Env, p.Mounts = nil, nil, nil
	type need struct{ value, device string }
	needs := map[string]need{} // by variable, and by folder in the container
	once := func(name, value, device string) (first bool, err error) {
		known, ok := needs[name]
		if ok && known.value != value {
			return false, fmt.Errorf("one container cannot use %s and %s together: each needs another %s; give them to workloads of their own", known.device, device, name)
		}
		needs[name] = need{value, device}
		return !ok, nil
	}
	for _, g := range p.Placement.Devices {
		a := answers[g]
		name := g.ID
		if g.Sharing == place.Partitions {
			name = g.ID + "-" + strings.TrimPrefix(a.Partition.ID, g.ID+"-")
		}
		if full, ok := cdi[name]; ok {
			p.Devices = append(p.Devices, full)
		} else if name != g.ID {
			return fmt.Errorf("the partition %s is made and not on the map of the hardware: see oscine hardware", name)
		}
		for _, e := range a.Env {
			variable, value, _ := strings.Cut(e, "=")
			if first, err := once(variable, value, g.ID); err != nil {
				return err
			} else if first {
				p.Env = append(p.Env, e)
			}
		}
		for _, m := range a.Mounts {
			if first, err := once(m.Target, m.Source, g.ID); err != nil {
				return err
			} else if first {
				p.Mounts = append(p.Mounts, m)
			}
		}
	}
	return nil
}

// Release takes back what an object has, once nothing of it runs any more. What
// cannot be taken back now is tried again by Sweep.
func (s *Shares) Release(ctx context.Context, id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.ContainsFunc(s.held, func(h share) bool { return h.Object == id }) {
		return
	}
	if err := s.drop(ctx, func(h *share) bool { return h.Object == id }); err != nil {
		s.log.Warn("a shared device is not free yet; trying again", "object", id, "error", err)
	}
}

// Sweep takes back what belongs to objects that are gone, and what could not be
// taken back before.
func (s *Shares) Sweep(ctx context.Context, exists func(id string) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	stray := func(h *share) bool { return h.Gone || !exists(h.Object) }
	if !slices.ContainsFunc(s.held, func(h share) bool { return stray(&h) }) {
		return
	}
	if err := s.drop(ctx, stray); err != nil {
		s.log.Warn("a shared device is not free yet; trying again", "error", err)
	}
}

// drop takes the chosen parts back. The caller holds s.mu.
func (s *Shares) drop(ctx context.Context, chosen func(*share) bool) error {
	ctx = context.WithoutCancel(ctx) // what was begun is finished
	var errs []error
	var left []share
	partitions := false
	for len(s.held) > 0 {
		h := s.held[0]
		s.held = s.held[1:]
		if !chosen(&h) {
			left = append(left, h)
			continue
		}
		rest := slices.DeleteFunc(slices.Concat(left, s.held), func(o share) bool { return o.Address != h.Address })
		if err := s.takeBack(ctx, &h, rest); err != nil {
			h.Gone = true
			left, errs = append(left, h), append(errs, err)
			continue
		}
		partitions = partitions || h.Grant.Sharing == place.Partitions
	}
	s.held = left
	errs = append(errs, s.store())
	if partitions {
		s.refresh(ctx)
	}
	return errors.Join(errs...)
}

// takeBack undoes one part; rest are those that stay on the device.
func (s *Shares) takeBack(ctx context.Context, h *share, rest []share) error {
	r := hardware.ShareRequest{Device: h.Address, Directory: s.folder(h.Grant.ID)}
	switch {
	case h.Grant.Sharing == place.Partitions:
		r.Action, r.Profile, r.Start = hardware.ShareUnpartition, h.Grant.Profile, h.Grant.Start
	case h.Grant.Sharing == place.MPS && len(rest) > 0:
		r.Action = hardware.ShareMPS
		r.Limit = most(rest)
	case len(rest) > 0:
		return nil // the others go on as they are
	default:
		r.Action = hardware.ShareIdle
	}
	_, err := s.ask(ctx, h, r)
	return err
}
