package object

import (
	"encoding/json"
	"fmt"
	"time"
)

// Phase is where an object is in its life.
type Phase string

// The phases.
const (
	Pending   Phase = "Pending"   // not begun yet
	Pulling   Phase = "Pulling"   // the image is on its way
	Starting  Phase = "Starting"  // the process exists, its health is not known yet
	Ready     Phase = "Ready"     // there, and nothing runs for it
	Running   Phase = "Running"   // and healthy, where a check is given
	Idle      Phase = "Idle"      // a model that is loaded by the next request
	Unhealthy Phase = "Unhealthy" // running, but its check fails
	Waiting   Phase = "Waiting"   // something failed; tried again after a pause
	Unplaced  Phase = "Unplaced"  // no part of this machine fits
	Exited    Phase = "Exited"    // ended, and its restart policy leaves it so
	Stopped   Phase = "Stopped"   // somebody stopped it; stays so until it is started or applied again
	Failed    Phase = "Failed"    // cannot work as it is; waits for another manifest
)

// Phases are all that an object may be in.
func Phases() []Phase {
	return []Phase{Pending, Pulling, Starting, Ready, Running, Idle, Unhealthy, Waiting, Unplaced, Exited, Stopped, Failed}
}

// Status is what a node reports about an object: a pointer to the status type of
// its kind, which embeds Observed.
type Status interface {
	// Common returns the part that every kind has.
	Common() *Observed
}

// Observed begins the status of every kind.
type Observed struct {
	Phase     Phase      `json:"phase"`
	Message   string     `json:"message,omitempty"`   // why the phase is not Running
	Restarts  int        `json:"restarts"`            // since the daemon started
	CreatedAt *time.Time `json:"createdAt,omitempty"` // when it was applied first
	StartedAt *time.Time `json:"startedAt,omitempty"` // the process that runs

	Placement *PlacementStatus `json:"placement,omitempty"`
	Isolation *IsolationStatus `json:"isolation,omitempty"` // promised and measured
}

// Common implements Status.
func (o *Observed) Common() *Observed { return o }

// CPUs returns the CPUs of the placement, "" before there is one.
func (o *Observed) CPUs() string {
	if o.Placement == nil {
		return ""
	}
	return o.Placement.CPUs
}

// PlacementStatus is a placement as it is shown to people.
type PlacementStatus struct {
	CPUs      string   `json:"cpus"`
	NUMANodes string   `json:"numaNodes,omitempty"`
	Exclusive bool     `json:"exclusive,omitempty"`
	Devices   []string `json:"devices,omitempty"`
	Sharing   []string `json:"sharing,omitempty"` // of devices that are not whole: how, and why so
	Reason    string   `json:"reason"`
	RunnerUp  string   `json:"runnerUp,omitempty"`
}

// StorageStatus is a folder that an object has on the data partition.
type StorageStatus struct {
	Name      string `json:"name"` // volume NAME, or writable layer
	Used      int64  `json:"used"` // bytes
	Limit     int64  `json:"limit,omitempty"`
	Files     int64  `json:"files,omitempty"` // and folders
	FileLimit int64  `json:"fileLimit,omitempty"`
	Problem   string `json:"problem,omitempty"`
}

// State is an object as it is meant to be and as it is on its node.
type State struct {
	Key
	Object Object // nil for a deleted object, and for a kind that the Table lacks
	Status Status // nil for a deleted object
}

// Column is one column of oscine get, beside those that all kinds have.
type Column struct {
	Title string
	Value func(Status) string // "" for what is not known
}

// column is a Column of one status type.
func column[S Status](title string, value func(S) string) Column {
	return Column{title, func(status Status) string {
		if st, ok := status.(S); ok {
			return value(st)
		}
		return ""
	}}
}

// DecodeState reads an object and its status from the JSON that a node sent,
// either of which may be empty. Fields that this release does not know are
// passed over; of a kind that it does not know only the common part of the
// status is read.
func (t Table) DecodeState(key Key, object, status []byte) (State, error) {
	state := State{Key: key}
	row, known := t.Find(key.Kind)
	if known && len(object) > 0 {
		state.Object = row.New()
		if err := json.Unmarshal(object, state.Object); err != nil {
			return State{}, fmt.Errorf("%s is not understood: %w", key, err)
		}
	}
	if len(status) > 0 {
		state.Status = &Observed{}
		if known && row.NewStatus != nil {
			state.Status = row.NewStatus()
		}
		if err := json.Unmarshal(status, state.Status); err != nil {
			return State{}, fmt.Errorf("the status of %s is not understood: %w", key, err)
		}
	}
	return state, nil
}
