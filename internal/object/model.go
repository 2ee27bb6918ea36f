package object

import (
	"cmp"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	imageref "github.com/distribution/reference"

	"oscine.dev/oscine/internal/pattern"
	"oscine.dev/oscine/internal/serve/ensemble"
)

// Bounds of a model's options.
const (
	maxOptions     = 32
	maxOptionBytes = 1000
)

// KindModel is the kind of Model.
const KindModel Kind = "Model"

func modelKind() Definition {
	return Definition{
		Kind:      KindModel,
		New:       func() Object { return &Model{} },
		NewStatus: func() Status { return &ModelStatus{} },
		Columns: []Column{
			column("ENGINE", func(st *ModelStatus) string { return st.Engine }),
			column("REQUESTS", func(st *ModelStatus) string { return strconv.FormatInt(st.Requests, 10) }),
			column("P99", func(st *ModelStatus) string {
				if st.P99 == 0 {
					return ""
				}
				return st.P99.String()
			}),
		},
	}
}

// Model is a file of weights served over the Open Inference Protocol.
type Model struct {
	Header
	Spec ModelSpec `json:"spec"`
}

// ModelSpec says what to serve and with which part of the machine.
type ModelSpec struct {
	Class  Class  `json:"class,omitempty"`  // default interactive
	Engine string `json:"engine,omitempty"` // that runs it; default: by the file's format
	Format string `json:"format,omitempty"` // ending of the file's name, such as .onnx; default: by its content
	// Source is the digest of an uploaded file, sha256:…, or a reference to a model
	// in a registry, oci://HOST/REPOSITORY:TAG or oci://HOST/REPOSITORY@sha256:…, or
	// a file or folder in an S3 bucket, s3://BUCKET/KEY or s3://BUCKET/KEY@sha256:…, or
	// release:FILE, the file of that name that comes with the running release; required
	// without ensemble.
	Source string `json:"source,omitempty"`
	S3     *S3    `json:"s3,omitempty"` // how the bucket of an s3:// source is reached
	// SignedBy are public keys, certificates of authorities, or identities of Sigstore, of which
	// one must have signed the model, besides the Machine's spec.models.signedBy. An
	// entry that is a text is a key; default: any model.
	SignedBy []Signer `json:"signedBy,omitempty"`
	// Ensemble makes it a pipeline of other Models, whose tensors go from step to
	// step inside the node.
	Ensemble *Ensemble `json:"ensemble,omitempty"`
	// Options tell the engine what the file does not, in the engine's own words.
	Options map[string]string `json:"options,omitempty"`
	Version string            `json:"version,omitempty"` // that clients see; default 1
	// ServedAs is the name by which clients ask for it, where that is no object's
	// name: with capitals, '_' or '.'; default: the object's name.
	ServedAs string `json:"servedAs,omitempty"`
	// Timeout is how long one inference may take before the worker is taken for
	// stuck and killed; default 60s.
	Timeout Duration `json:"timeout,omitzero"`
	// DefaultTimeout is the timeout of requests that do not specify one; default:
	// none.
	DefaultTimeout Duration `json:"defaultTimeout,omitzero"`
	// Traffic is the percentage of the requests without a version that this Model
	// gets where several share a name, together at most 100; by default the newest
	// gets what the others leave. A change takes effect immediately.
	Traffic *int `json:"traffic,omitempty"`
	// Shadow sends it copies of the requests to other versions; its answers are
	// counted and discarded.
	Shadow bool `json:"shadow,omitempty"`
	// Load says when the model is in memory: always (default), or onDemand: from a
	// request until there was none for idleTimeout, or until another model needs the
	// room.
	Load LoadPolicy `json:"load,omitempty"`
	// Instances is how many workers load the model, 1 to 32, each with all of
	// spec.resources for itself, on NUMA nodes and devices of its own where there are
	// several; default 1. They take requests from one queue. The model answers with
	// those that there is room for.
	Instances   int      `json:"instances,omitempty"`
	IdleTimeout Duration `json:"idleTimeout,omitzero"` // without a request, until a model with load onDemand is unloaded; default 5m
	// DynamicBatching says whether and how requests are batched; by default they are
	// if the model's graph proves that its rows are independent, with all that wait.
	DynamicBatching *DynamicBatching `json:"dynamicBatching,omitempty"`
	// ResponseCache keeps responses, to answer equal requests without computing them
	// again; default: none is kept. Not for models whose answers are random.
	ResponseCache *ResponseCache `json:"responseCache,omitempty"`
	// SequenceBatching says that the model has state, which the node keeps between the
	// requests of a sequence (sequence_id, sequence_start, sequence_end).
	SequenceBatching *SequenceBatching `json:"sequenceBatching,omitempty"`
	// Reshape gives tensors other shapes for clients than the model has, as Triton's
	// configuration does.
	Reshape *Reshape `json:"reshape,omitempty"`
	// MaxRequest is how many bytes the inputs and outputs of one request may have,
	// at most 1Gi; default 256Mi, or what fixed shapes need.
	MaxRequest Quantity  `json:"maxRequest,omitzero"`
	Resources  Resources `json:"resources,omitzero"` // cpu defaults to 100m, or to 1 with class realtime
}

// LoadPolicy says when a model is in memory.
type LoadPolicy string

// The load policies.
const (
	LoadAlways   LoadPolicy = "always"
	LoadOnDemand LoadPolicy = "onDemand"
)

// OnDemand reports whether the model is loaded by its requests.
func (m *Model) OnDemand() bool { return m.Spec.Load == LoadOnDemand }

// Ensemble says which Models make up a pipeline, as Triton's ensemble_scheduling does.
type Ensemble struct {
	Steps []EnsembleStep `json:"steps"` // in any order
	// Outputs are the tensors that clients get; default: those that no step takes.
	// Inputs are the tensors that no step gives.
	Outputs []string `json:"outputs,omitempty"`
}

// EnsembleStep is one Model of a pipeline, by the name under which it is served.
type EnsembleStep struct {
	ModelName    string            `json:"modelName"`              // by which clients ask for it
	ModelVersion string            `json:"modelVersion,omitempty"` // default: whichever is served
	InputMap     map[string]string `json:"inputMap"`               // all inputs of the Model to tensors of the pipeline
	OutputMap    map[string]string `json:"outputMap"`              // outputs of the Model to tensors of the pipeline
}

// Arranged are the steps in the terms of package ensemble.
func (e *Ensemble) Arranged() []ensemble.Step {
	steps := make([]ensemble.Step, len(e.Steps))
	for i, s := range e.Steps {
		steps[i] = ensemble.Step{Model: s.ModelName, Version: s.ModelVersion, Inputs: s.InputMap, Outputs: s.OutputMap}
	}
	return steps
}

// checkEnsemble refuses what an ensemble cannot have.
func (m *Model) checkEnsemble(c *Checker) {
	s := &m.Spec
	if _, err := ensemble.Arrange(s.Ensemble.Arranged(), s.Ensemble.Outputs); err != nil {
		c.Bad("spec.ensemble", "%v", err)
	}
	others := map[string]bool{
		"source": s.Source != "", "engine": s.Engine != "", "format": s.Format != "", "options": len(s.Options) > 0, "s3": s.S3 != nil, "signedBy": len(s.SignedBy) > 0, "maxRequest": !s.MaxRequest.IsZero(), "timeout": s.Timeout != 0,
		"reshape": s.Reshape != nil, "load": s.Load != "", "idleTimeout": s.IdleTimeout != 0, "instances": s.Instances != 0,
		"dynamicBatching": s.DynamicBatching != nil, "responseCache": s.ResponseCache != nil, "sequenceBatching": s.SequenceBatching != nil, "resources": !reflect.ValueOf(s.Resources).IsZero(),
	}
	for _, field := range slices.Sorted(maps.Keys(others)) {
		if others[field] {
			c.Bad("spec."+field, "an ensemble has no worker: set it in the Models of its steps")
		}
	}
}

// SequenceBatching says what state a model has, as Triton's configuration does.
type SequenceBatching struct {
	State           []SequenceState `json:"state"`                    // the tensors of the state
	MaxSequences    int             `json:"maxSequences,omitempty"`   // at once; default 64
	MaxSequenceIdle Duration        `json:"maxSequenceIdle,omitzero"` // after which a sequence ends; default 1m
}

// SequenceState is one tensor of a state: what the output gave goes into the input
// of the sequence's next request. Clients see neither.
type SequenceState struct {
	InputName  string `json:"inputName"`  // the model's input for the state
	OutputName string `json:"outputName"` // the model's output with the next state
	// Dims is the shape at a sequence's start, when the state is zero; default: the
	// input's, where open dimensions are 1.
	Dims []int64 `json:"dims,omitempty"`
}

func (s *SequenceBatching) check(c *Checker) {
	if len(s.State) == 0 || len(s.State) > 16 {
		c.Bad("spec.sequenceBatching.state", "must have 1 to 16 entries, got %d", len(s.State))
	}
	inputs, outputs := map[string]bool{}, map[string]bool{}
	for _, state := range s.State {
		if state.InputName == "" || state.OutputName == "" || inputs[state.InputName] || outputs[state.OutputName] {
			c.Bad("spec.sequenceBatching.state", "each entry must name an inputName and an outputName that no other entry has")
			break
		}
		inputs[state.InputName], outputs[state.OutputName] = true, true
		for _, d := range state.Dims {
			if d < 1 || d > 1<<30 {
				c.Bad("spec.sequenceBatching.state", "dims of %.60q must be numbers from 1 to 1073741824, got %d", state.InputName, d)
				break
			}
		}
	}
	c.Number("spec.sequenceBatching.maxSequences", int64(s.MaxSequences), 1, 4096)
	c.Duration("spec.sequenceBatching.maxSequenceIdle", s.MaxSequenceIdle, time.Millisecond, 24*time.Hour)
}

// ResponseCache says which responses of a model are kept.
type ResponseCache struct {
	Size Quantity `json:"size"` // bytes, at most 1Gi; the least recently used make room
	// PerClient answers a client only from what it has asked itself. Otherwise a
	// client can tell by the time of an answer that another one has asked the same.
	PerClient bool `json:"perClient,omitempty"`
}

func (r *ResponseCache) check(c *Checker) {
	if n, whole := r.Size.Value(); !whole || n < 4<<10 || n > 1<<30 {
		c.Bad("spec.responseCache.size", "must be bytes from 4Ki to 1Gi, got %s", r.Size)
	}
}

// DynamicBatching says how requests share the runs of a model.
type DynamicBatching struct {
	Disabled            bool     `json:"disabled,omitempty"`            // do not batch requests
	PreferredBatchSizes []int    `json:"preferredBatchSizes,omitempty"` // rows of a batch, ascending; the largest that can be filled is taken
	MaxBatchSize        int      `json:"maxBatchSize,omitempty"`        // rows of a batch at most; a single request may have more; default: as many as wait
	MaxQueueDelay       Duration `json:"maxQueueDelay,omitzero"`        // how long a request waits at most for others to join its batch, while that saves computing time; default 0s
}

func (d *DynamicBatching) check(c *Checker) {
	if d.Disabled && (len(d.PreferredBatchSizes) > 0 || d.MaxBatchSize != 0 || d.MaxQueueDelay != 0) {
		c.Bad("spec.dynamicBatching.disabled", "cannot be combined with preferredBatchSizes, maxBatchSize or maxQueueDelay")
	}
	c.Number("spec.dynamicBatching.maxBatchSize", int64(d.MaxBatchSize), 1, 1<<16)
	if len(d.PreferredBatchSizes) > 16 {
		c.Bad("spec.dynamicBatching.preferredBatchSizes", "has %d entries, at most 16 are accepted", len(d.PreferredBatchSizes))
	}
	for i, n := range d.PreferredBatchSizes {
		if n < 1 || n > 1<<16 || i > 0 && n <= d.PreferredBatchSizes[i-1] {
			c.Bad("spec.dynamicBatching.preferredBatchSizes", "must ascend, from 1 to 65536")
			break
		}
		if d.MaxBatchSize > 0 && n > d.MaxBatchSize {
			c.Bad("spec.dynamicBatching.preferredBatchSizes", "%d is more than maxBatchSize, which is %d", n, d.MaxBatchSize)
			break
		}
	}
	if d.MaxQueueDelay != 0 {
		c.Duration("spec.dynamicBatching.maxQueueDelay", d.MaxQueueDelay, 10*time.Microsecond, 10*time.Second)
	}
}

// ModelStatus is a model's present state.
type ModelStatus struct {
	Observed
	PID     int    `json:"pid,omitempty"` // of its worker
	Engine  string `json:"engine,omitempty"`
	Source  string `json:"source,omitempty"`  // that is served
	Digest  string `json:"digest,omitempty"`  // under which its files are stored
	Signer  string `json:"signer,omitempty"`  // who signed them, where that had to be verified: a key by its SHA-256, or a certificate's subject
	Version string `json:"version,omitempty"` // that is served
	// Update is what became of the manifest that was applied last, while an
	// earlier one is served.
	Update *ModelUpdate `json:"update,omitempty"`
	Pack   string       `json:"pack,omitempty"` // digest
	// PackUpdate is what became of the move to a newer version of the pack, as long as the
	// model runs on an older one.
	PackUpdate          *ModelUpdate `json:"packUpdate,omitempty"`
	Requests            int64        `json:"requests"`
	Errors              int64        `json:"errors"`
	P50                 Duration     `json:"p50,omitzero"` // of a request inside the node
	P99                 Duration     `json:"p99,omitzero"`
	Missed              int64        `json:"missed"`                        // answered after the latency objective, or after their own timeout
	Expired             int64        `json:"expired"`                       // refused because their timeout had passed, or would have
	CacheHits           int64        `json:"cacheHits,omitempty"`           // answered from the response cache
	CacheMisses         int64        `json:"cacheMisses,omitempty"`         // looked for there in vain
	Sequences           int          `json:"sequences,omitempty"`           // whose state is kept
	Loads               int64        `json:"loads,omitempty"`               // of the model into memory
	Evictions           int64        `json:"evictions,omitempty"`           // to make room for another model
	PriorityUnavailable string       `json:"priorityUnavailable,omitempty"` // why requests get no priority by their deadlines
	// Instances are the workers, where the manifest asks for several; the fields above
	// that are of one process are the first one's.
	Instances []ModelInstance `json:"instances,omitempty"`
	// Costs are how long runs of so many rows took, where requests share runs.
	Costs []ModelCost `json:"costs,omitempty"`
	// BatchingStopped says why requests share no runs any more.
	BatchingStopped string `json:"batchingStopped,omitempty"`
	// Candidates are the packs whose engines read the model, the one that the rules
	// prefer first, with what came out where they were tried.
	Candidates []ModelCandidate `json:"candidates,omitempty"`
}

// ModelInstance is one of a model's workers.
type ModelInstance struct {
	Phase     Phase            `json:"phase"`
	Message   string           `json:"message,omitempty"` // why the phase is not Running
	PID       int              `json:"pid,omitempty"`
	Restarts  int              `json:"restarts"` // since the model is served
	StartedAt *time.Time       `json:"startedAt,omitempty"`
	Runs      int64            `json:"runs"` // batches that it has computed
	Placement *PlacementStatus `json:"placement,omitempty"`
}

// ModelCost is what a batch of a size takes, on average.
type ModelCost struct {
	Rows float64  `json:"rows"`
	Time Duration `json:"time"`
}

// ModelUpdate is a manifest, or a version of a pack, that is not served yet.
type ModelUpdate struct {
	Phase   Phase  `json:"phase"`             // Starting, Waiting or Failed
	Message string `json:"message,omitempty"` // why it is not served
}

// ModelCandidate is a pack whose engine reads a model.
type ModelCandidate struct {
	Pack   string   `json:"pack"`             // name and version
	Engine string   `json:"engine,omitempty"` // name and version, as the worker says
	Load   Duration `json:"load,omitzero"`    // until it could be run
	Batch1 Duration `json:"batch1,omitzero"`  // the shortest run of one row, on made-up inputs
	Batch8 Duration `json:"batch8,omitzero"`  // of eight rows
	// Difference is the greatest of its outputs from those of the first engine that
	// answers, in parts of the greatest number of an output.
	Difference *float64 `json:"difference,omitempty"`
	Chosen     bool     `json:"chosen,omitempty"`
	Reason     string   `json:"reason,omitempty"` // why it was chosen or not
}

var (
	digestRE  = pattern.New(`^sha256:[0-9a-f]{64}$`)
	engineRE  = pattern.New(`^[a-z0-9][a-z0-9.-]{0,62}$`)
	optionRE  = pattern.New(`^[A-Za-z][A-Za-z0-9._-]{0,62}$`)
	versionRE = pattern.New(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)
	servedRE  = pattern.New(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,254}$`)
	formatRE  = pattern.New(`^\.[a-z0-9][a-z0-9_+-]{0,20}$`)

	releaseFileRE = pattern.New(`^[0-9A-Za-z_~^-][0-9A-Za-z._~^-]{0,254}$`)
)

// isReference reports whether a source names a model in a registry.
func isReference(source string) bool {
	rest, ok := strings.CutPrefix(source, "oci://")
	named, err := imageref.ParseDockerRef(rest)
	return ok && err == nil && strings.HasPrefix(rest, imageref.Domain(named)+"/")
}

// ReleaseModel returns the name of the file where a source is one that the running
// release pins.
func ReleaseModel(source string) (name string, ok bool) {
	name, ok = strings.CutPrefix(source, "release:")
	return name, ok && releaseFileRE.MatchString(name)
}

// ServedName is the name by which clients ask for the model.
func (m *Model) ServedName() string { return cmp.Or(m.Spec.ServedAs, m.Metadata.Name) }

// Registry is the host of the registry that the model comes from, "" where it was
// uploaded.
func (m *Model) Registry() string {
	rest, ok := strings.CutPrefix(m.Spec.Source, "oci://")
	if !ok {
		return ""
	}
	host, _, _ := strings.Cut(rest, "/")
	return host
}

// Resources implements Placeable.
func (m *Model) Resources() *Resources { return &m.Spec.Resources }

// Class implements Placeable.
func (m *Model) Class() Class { return m.Spec.Class }

// SetDefaults implements Object.
func (m *Model) SetDefaults() {
	setDefault(&m.Spec.Class, Interactive)
	setDefault(&m.Spec.Version, "1")
	if e := m.Spec.Ensemble; e != nil && len(e.Steps) > 0 && e.Steps[0].ModelName != "" {
		return // the models that it names take parts of the machine
	}
	if m.Spec.Resources.CPU.IsZero() {
		// Interactive models share: what they ask for is their part when all compute.
		m.Spec.Resources.CPU = literal("100m")
		if m.Spec.Class == Realtime {
			m.Spec.Resources.CPU = literal("1")
		}
	}
}

// Check implements Object.
func (m *Model) Check(c *Checker) {
	c.Class(m.Spec.Class)
	if m.Spec.Engine != "" && !engineRE.MatchString(m.Spec.Engine) {
		c.Bad("spec.engine", "must name an engine of a pack (oscine pack list): lower-case letters, digits, '.' or '-', got %q", m.Spec.Engine)
	}
	if m.Spec.Format != "" && !formatRE.MatchString(m.Spec.Format) {
		c.Bad("spec.format", "must be the ending of a file's name, such as .onnx: a dot and lower-case letters or digits, got %q", m.Spec.Format)
	}
	if len(m.Spec.Options) > maxOptions {
		c.Bad("spec.options", "has %d entries, at most %d are accepted", len(m.Spec.Options), maxOptions)
	}
	for _, name := range slices.Sorted(maps.Keys(m.Spec.Options)) {
		if value := m.Spec.Options[name]; !optionRE.MatchString(name) || len(value) > maxOptionBytes || strings.ContainsRune(value, 0) {
			c.Bad("spec.options", "%.60q: a name must be letters, digits, '.', '_' or '-', a value at most %d bytes", name, maxOptionBytes)
		}
	}
	if m.Spec.Ensemble != nil {
		m.checkEnsemble(c)
	} else if _, pinned := ReleaseModel(m.Spec.Source); !pinned && !digestRE.MatchString(m.Spec.Source) && !isReference(m.Spec.Source) && !isS3(m.Spec.Source) {
		c.Bad("spec.source", "must be the sha256:… digest of an uploaded file (oscine serve FILE uploads a file and applies its Model; oscine model list prints the digests of those that the node has), oci://HOST/REPOSITORY:TAG, s3://BUCKET/KEY, or release:FILE for a file of the running release, got %q", m.Spec.Source)
	}
	if s := m.Spec.S3; s != nil {
		s.Check(c, "spec.s3")
		if !IsS3(m.Spec.Source) {
			c.Bad("spec.s3", "is only for sources that begin with %s", schemeS3)
		}
	}
	checkSignedBy(c, "spec.signedBy", m.Spec.SignedBy)
	if _, pinned := ReleaseModel(m.Spec.Source); pinned && len(m.Spec.SignedBy) > 0 {
		c.Bad("spec.signedBy", "the release that brings the file is signed, and pins it: leave it out")
	}
	if m.Spec.Version != "" && !versionRE.MatchString(m.Spec.Version) {
		c.Bad("spec.version", "must be letters, digits, '.', '_' or '-', at most 63, got %q", m.Spec.Version)
	}
	if m.Spec.ServedAs != "" && !servedRE.MatchString(m.Spec.ServedAs) {
		c.Bad("spec.servedAs", "must be letters, digits, '.', '_' or '-', at most 255, got %q", m.Spec.ServedAs)
	}
	if !m.Spec.MaxRequest.IsZero() {
		if n, whole := m.Spec.MaxRequest.Value(); !whole || n < 4<<10 || n > 1<<30 {
			c.Bad("spec.maxRequest", "must be bytes from 4Ki to 1Gi, got %s", m.Spec.MaxRequest)
		}
	}
	if m.Spec.Load != "" && m.Spec.Load != LoadAlways && m.Spec.Load != LoadOnDemand {
		c.Bad("spec.load", "must be always or onDemand, got %q", m.Spec.Load)
	}
	if m.Spec.IdleTimeout != 0 && !m.OnDemand() {
		c.Bad("spec.idleTimeout", "is only for load: onDemand")
	}
	if m.OnDemand() && m.Spec.Resources.Gang != nil {
		c.Bad("spec.load", "a gang is placed together: leave out one of onDemand and resources.gang")
	}
	c.Number("spec.instances", int64(m.Spec.Instances), 1, MaxInstances)
	if m.Spec.Instances > 1 && m.Spec.Resources.Gang != nil {
		c.Bad("spec.instances", "a gang's member is one worker: leave out one of instances and resources.gang")
	}
	c.Duration("spec.idleTimeout", m.Spec.IdleTimeout, time.Second, 7*24*time.Hour)
	if r := m.Spec.ResponseCache; r != nil {
		r.check(c)
	}
	if r := m.Spec.Reshape; r != nil {
		r.check(c)
		if m.Spec.SequenceBatching != nil {
			c.Bad("spec.reshape", "cannot be combined with sequenceBatching")
		}
	}
	if s := m.Spec.SequenceBatching; s != nil {
		s.check(c)
		if m.Spec.ResponseCache != nil {
			c.Bad("spec.responseCache", "responses of a model with sequenceBatching depend on its state: leave out one of them")
		}
	}
	if t := m.Spec.Traffic; t != nil && (*t < 0 || *t > 100) {
		c.Bad("spec.traffic", "must be a percentage from 0 to 100, got %d", *t)
	} else if t != nil && m.Spec.Shadow {
		c.Bad("spec.traffic", "a shadow answers no requests: leave out one of traffic and shadow")
	}
	if d := m.Spec.DynamicBatching; d != nil {
		d.check(c)
		if m.Spec.Options["batch"] != "" {
			c.Bad("spec.options", "batch and spec.dynamicBatching set the same thing: leave out one of them")
		}
	}
	c.Duration("spec.timeout", m.Spec.Timeout, time.Millisecond, 24*time.Hour)
	c.Duration("spec.defaultTimeout", m.Spec.DefaultTimeout, time.Millisecond, time.Hour)
	m.Spec.Resources.Check(c, "spec.resources", m.Spec.Class)
	if m.Spec.Resources.Deadline != nil {
		c.Bad("spec.resources.deadline", "a model's engine works in many threads, a reservation is one thread's; leave it out")
	}
}
