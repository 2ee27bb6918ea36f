package isolate

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
	"oscine.dev/oscine/internal/hardware"
)

// Drift is something that no longer is as it was set.
type Drift struct {
	Path     string // below the cgroup root
	Want     string
	Got      string // "" where it is gone
	Repaired bool
	Problem  string // why it could not be repaired
}

// String says in one line what changed and what came of it.
func (d Drift) String() string {
	text := fmt.Sprintf("%s was %q, is %q", d.Path, d.Want, d.Got)
	if d.Got == "" {
		text = d.Path + " is gone"
	}
	if d.Repaired {
		return text + ": set again"
	}
	return text + ": " + d.Problem
}

// Verify compares the kernel with what was set, sets again what someone else
// changed, and reports both as events. It costs one read for each setting.
func (i *Isolator) Verify() []Drift {
	done := i.change()
	var events []Event
	var drifts []Drift
	if i.host.cgroups != "" {
		i.sweep()
		drifts = i.verifyGroups()
		drifts = append(drifts, i.verifyFiles()...)
		for _, h := range i.held {
			i.gather(h)
		}
		events = append(events, i.verifyPartitions()...)
		events = append(events, i.verifySchedExt()...)
	}
	done()
	for _, d := range drifts {
		reason := ReasonBroken
		if d.Repaired {
			reason = ReasonRepaired
		}
		events = append(events, Event{ID: i.owner(d.Path), Reason: reason, Message: d.String()})
	}
	i.emit(events)
	return drifts
}

// owner is the workload that a path belongs to, "" for a slice.
func (i *Isolator) owner(path string) string {
	parts := strings.Split(path, "/")
	if len(parts) < 3 || strings.Contains(parts[2], ".") && !exists(i.cg.path(parts[:3]...)) {
		return ""
	}
	if _, ok := i.view().held[parts[2]]; ok {
		return parts[2]
	}
	return ""
}

// verifyGroups makes the slices again if they were removed. A workload's own
// cgroup goes with its container and comes with the next Prepare.
func (i *Isolator) verifyGroups() []Drift {
	for _, c := range allClasses() {
		group := filepath.Join(i.o.Slice, string(c))
		if exists(i.cg.path(group)) {
			continue
		}
		d := Drift{Path: group, Want: "a cgroup"}
		gaps := i.makeSlices()
		d.Repaired = exists(i.cg.path(group))
		if !d.Repaired {
			d.Problem = fmt.Sprint(gaps)
		}
		return []Drift{d}
	}
	return nil
}

func (i *Isolator) verifyFiles() []Drift {
	var drifts []Drift
	for _, name := range i.cg.names() {
		if d, ok := i.verifyFile(name); ok {
			drifts = append(drifts, d)
		}
	}
	return drifts
}

// verifyFile tells whether a file is not as it was set, and sets it again.
func (i *Isolator) verifyFile(name string) (Drift, bool) {
	group, file := filepath.Dir(name), filepath.Base(name)
	want := i.cg.entry(group, file)
	want.mu.Lock()
	defer want.mu.Unlock()
	if !want.written {
		return Drift{}, false
	}
	got, err := i.cg.get(group, file)
	if errors.Is(err, unix.ENODEV) || errors.Is(err, fs.ErrNotExist) && !exists(i.cg.path(group)) {
		i.cg.forget(group) // it ended
		return Drift{}, false
	}
	if err == nil && got == want.shows {
		return Drift{}, false
	}
	d := Drift{Path: name, Want: want.shows, Got: got}
	if err == nil {
		err = writeFile(i.cg.path(group, file), want.wrote)
	}
	if err == nil {
		got, err = i.cg.get(group, file)
	}
	switch {
	case err != nil:
		d.Problem = err.Error()
	case got != want.shows:
		d.Problem = fmt.Sprintf("the kernel keeps it at %q", got)
	default:
		d.Repaired = true
	}
	return d, true
}

// verifyPartitions reports workloads whose CPUs are no longer all
// there and their own, once for each change.
func (i *Isolator) verifyPartitions() []Event {
	var events []Event
	online := i.host.online()
	for id, h := range i.held {
		if !h.spec.Exclusive || !exists(i.cg.path(h.group())) {
			continue
		}
		problem := i.partitionProblem(h, online)
		broken := slices.ContainsFunc(h.unheld, func(g Gap) bool { return g.Guarantee == guaranteeCPUs })
		if (problem != "") == broken {
			continue
		}
		h.unheld = slices.DeleteFunc(h.unheld, func(g Gap) bool { return g.Guarantee == guaranteeCPUs })
		if problem == "" {
			events = append(events, Event{ID: id, Reason: ReasonRepaired, Message: "CPUs " + h.spec.CPUs.String() + " are its own again"})
			continue
		}
		h.miss(guaranteeCPUs, "%s", problem)
		events = append(events, Event{ID: id, Reason: ReasonBroken, Message: problem})
	}
	return events
}

// What the partitions of a workload with CPUs of its own give.
const (
	guaranteeCPUs = "CPUs of its own"
	guaranteeIdle = "SMT siblings of its CPUs stay idle"
)

func (i *Isolator) partitionProblem(h *holding, online hardware.Set) string {
	if off := h.spec.CPUs.Minus(online); !off.Empty() {
		return fmt.Sprintf("CPU %s of its %s went offline: bring it back, or delete and apply the workload to place it again", off, h.spec.CPUs)
	}
	text, err := i.cg.get(h.group(), "cpuset.cpus.partition")
	switch {
	case err != nil:
		return "its partition cannot be read: " + err.Error()
	case strings.Contains(text, "invalid"), text == "member":
		return "its CPUs are no partition of their own: " + text
	}
	return ""
}
