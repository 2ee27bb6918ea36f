package channel

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"oscine.dev/oscine/internal/tensor"
)

// Version is the newest version of the protocol that this code speaks.
const Version = 2

// Versions returns the versions that this code speaks, the best first. At
// hello both sides take the newest that both know.
func Versions() []int { return []int{Version} }

// Bounds of the protocol.
const (
	MaxMessage  = 128 << 10 // bytes of a message
	MaxRequests = 64        // requests of one run message
	MaxTensors  = 512       // inputs, or outputs, of a model
	MaxParallel = 64        // runs that an engine computes at once
	MaxText     = 1000      // bytes of an error, of an engine's name, of a tensor's name
	maxVersions = 16
)

type kind byte

const (
	helloKind kind = iota + 1
	welcomeKind
	loadKind
	loadedKind
	regionKind
	mappedKind
	statisticsKind
	figuresKind
	unloadKind
	unloadedKind
	runKind
	resultKind
)

// ErrProtocol is wrapped by every error that means that the other side does
// not follow the protocol; the connection is of no further use.
var ErrProtocol = errors.New("worker protocol broken")

// ErrTooLong means that requests take more than a message has room for. Nothing
// was sent.
var ErrTooLong = errors.New("too many requests, or tensors, for one run")

// Metadata is what a worker says of its model after loading it.
type Metadata struct {
	Engine   string        `json:"engine"` // name and version, for example "onnxruntime 1.30.0"
	Inputs   []tensor.Spec `json:"inputs"`
	Outputs  []tensor.Spec `json:"outputs"`
	Batch    bool          `json:"batch"`    // the first dimension of all inputs and outputs is a batch that requests may share
	Streams  bool          `json:"streams"`  // a request may be answered in parts
	Parallel int           `json:"parallel"` // runs that are computed at once; 0 means 1
	Threads  int           `json:"threads"`  // of the engine
}

// SameModel reports whether a worker describes the model as another did: what
// clients and slots depend on. The engine's version and threads may differ.
func (m *Metadata) SameModel(other *Metadata) bool {
	return slices.EqualFunc(m.Inputs, other.Inputs, tensor.Spec.Equal) && slices.EqualFunc(m.Outputs, other.Outputs, tensor.Spec.Equal) &&
		m.Batch == other.Batch && m.Streams == other.Streams && m.Runs() == other.Runs()
}

// Runs is how many runs the engine computes at once, at least 1.
func (m *Metadata) Runs() int { return max(1, m.Parallel) }

func (m *Metadata) check() error {
	if len(m.Inputs) > MaxTensors || len(m.Outputs) == 0 || len(m.Outputs) > MaxTensors {
		return fmt.Errorf("%w: %d inputs and %d outputs", ErrProtocol, len(m.Inputs), len(m.Outputs))
	}
	if m.Parallel < 0 || m.Parallel > MaxParallel || len(m.Engine) > MaxText {
		return fmt.Errorf("%w: %d runs at once of an engine with a name of %d bytes", ErrProtocol, m.Parallel, len(m.Engine))
	}
	for _, spec := range slices.Concat(m.Inputs, m.Outputs) {
		if !spec.Type.Valid() || len(spec.Shape) > tensor.MaxRank || spec.AnyRank && len(spec.Shape) > 0 || len(spec.Name) > MaxText {
			return fmt.Errorf("%w: tensor %.100q has type %s and %d dimensions", ErrProtocol, spec.Name, spec.Type, len(spec.Shape))
		}
		for _, d := range spec.Shape {
			if d < -1 || d > tensor.MaxBytes {
				return fmt.Errorf("%w: tensor %.100q has the shape %s", ErrProtocol, spec.Name, spec.Shape)
			}
		}
	}
	return nil
}

// Load says what the worker is to serve. A worker that has loaded just that
// answers at once.
type Load struct {
	Path    string            `json:"path"`    // of the model's file or folder, as the worker sees it
	Threads int               `json:"threads"` // at most; 0 means as many as the cpuset has processors
	Options map[string]string `json:"options,omitempty"`
	Name    string            `json:"name,omitempty"`   // by which clients ask for the model, for answers that repeat it
	Memory  int64             `json:"memory,omitempty"` // bytes that the worker may use; 0 means no limit
}

// Equal reports whether two loads ask for the same.
func (l Load) Equal(other Load) bool {
	return l.Path == other.Path && l.Threads == other.Threads && l.Name == other.Name && l.Memory == other.Memory && maps.Equal(l.Options, other.Options)
}

// Statistics is what a worker counts of itself, since its start.
type Statistics struct {
	Runs        int64 `json:"runs"`        // calls of the engine
	Requests    int64 `json:"requests"`    // answered, in all
	Failed      int64 `json:"failed"`      // answered with an error
	Cancelled   int64 `json:"cancelled"`   // cancelled or too late, computed or not
	Partial     int64 `json:"partial"`     // partial results
	ComputeNS   int64 `json:"computeNs"`   // time inside the engine
	MemoryBytes int64 `json:"memoryBytes"` // resident, of the worker's process
	LoadNS      int64 `json:"loadNs"`      // time to load the model, with its self-test
	// Of a language model: tokens that it read, without those that it had in its
	// cache, and tokens that it generated.
	PromptTokens    int64 `json:"promptTokens,omitempty"`
	GeneratedTokens int64 `json:"generatedTokens,omitempty"`
}

// Add adds what another worker of the same model counts.
func (s *Statistics) Add(other Statistics) {
	s.Runs += other.Runs
	s.Requests += other.Requests
	s.Failed += other.Failed
	s.Cancelled += other.Cancelled
	s.Partial += other.Partial
	s.ComputeNS += other.ComputeNS
	s.MemoryBytes += other.MemoryBytes
	s.LoadNS += other.LoadNS
	s.PromptTokens += other.PromptTokens
	s.GeneratedTokens += other.GeneratedTokens
}

type helloMessage struct {
	Versions []int `json:"versions"`
}

type welcomeMessage struct {
	Version int    `json:"version,omitempty"`
	Error   string `json:"error,omitempty"`
}

type loadedMessage struct {
	Error string `json:"error,omitempty"`
	Metadata
}

// regionMessage comes with the region's descriptor.
type regionMessage struct {
	Slots     int `json:"slots"`
	SlotBytes int `json:"slotBytes"`
	WarmSlots int `json:"warmSlots"`
	WarmBytes int `json:"warmBytes"`
}

// errorMessage answers region and unload.
type errorMessage struct {
	Error string `json:"error,omitempty"`
}

// negotiate returns the newest version that both know.
func negotiate(theirs []int) (int, error) {
	if len(theirs) <= maxVersions {
		for _, v := range Versions() {
			if slices.Contains(theirs, v) {
				return v, nil
			}
		}
	}
	list := strings.Trim(fmt.Sprint(theirs[:min(len(theirs), maxVersions)]), "[]")
	return 0, fmt.Errorf("%w: the worker speaks version %s of the protocol, this daemon %d: install the pack of this release", ErrProtocol, list, Version)
}

func encode(k kind, v any) ([]byte, error) {
	body, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	if len(body) >= MaxMessage {
		return nil, fmt.Errorf("%w: message of %d bytes", ErrProtocol, len(body))
	}
	return append([]byte{byte(k)}, body...), nil
}

func decode(msg []byte, k kind, v any) error {
	if len(msg) == 0 || kind(msg[0]) != k {
		return fmt.Errorf("%w: unexpected message", ErrProtocol)
	}
	if err := json.Unmarshal(msg[1:], v); err != nil {
		return fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	return nil
}
