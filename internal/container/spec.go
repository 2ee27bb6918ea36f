package container

import (
	"context"
	"syscall"
	"time"
)

// Spec says what to run. Exactly one of Image and RootFS is given.
type Spec struct {
	ID     string            // 1 to 76 lower-case letters and digits with single inner hyphens
	Image  string            // reference of an image that Import or Pull stored
	RootFS string            // absolute path of a directory or mount, used read-only as the root below
	Labels map[string]string // the caller's own, kept with the container and given back by Status

	Entrypoint []string // replaces the image's entrypoint, and drops its command
	Args       []string // replaces the image's command
	Env        []string // KEY=value, over the image's
	Cwd        string   // absolute; "" means the image's, else /
	// Hold has the container wait, under a program of the node's: what it would run
	// is started by Exec without Args.
	Hold bool   `json:",omitempty"`
	User string // uid[:gid] or a name from the image's /etc/passwd; "" means the image's, else 65532

	Mounts  []Mount
	Files   []Files  `json:",omitempty"` // secrets
	Devices []string // CDI names, such as nvidia.com/gpu=0

	Limits     Limits
	CgroupPath string // absolute below the cgroup root; "" means container-ID below Config.CgroupRoot
	OOMScore   int    // oom_score_adj, -1000 to 1000

	// NetNS is "" for a new network namespace with only lo, "host" for the
	// node's, else the path of a network namespace.
	NetNS    string
	Hostname string   // "" means ID
	DNS      []string // addresses of name servers; empty means the node's, without those on its loopback

	// Created, when given, is called once the namespaces exist and before the
	// program runs, with the process that holds them: the place to move an
	// interface into a new network namespace. An error undoes the start.
	Created func(ctx context.Context, pid int) error `json:"-"`

	LogBytes int64 // bound of the log on disk; 0 means 8 MiB
	Security Security
}

// Limits bounds what a container may take. Zero fields mean no limit.
type Limits struct {
	CPUs        string // cpuset list such as 0-3,8
	MemoryNodes string // NUMA node list such as 0
	MilliCPU    int64  // thousandths of a core
	MemoryBytes int64  // swap is not added
	PIDs        int64
}

// Security loosens the default: not root, no capability, read-only root, own
// user namespace, seccomp filter, no new privileges.
type Security struct {
	AllowRoot       bool     // uid 0 may be used, inside the container's user namespace
	WritableRoot    bool     // a layer over the root that lasts until the next start
	AddCapabilities []string // without CAP_, such as NET_BIND_SERVICE
}

// Mount shows a directory, file or socket of the node inside a container.
// Owners on disk are the container's user ids: the mount is id-mapped where
// the file system can.
type Mount struct {
	Source   string // absolute, on the node
	Target   string // absolute, in the container
	ReadOnly bool
	Volume   bool // Source is created if absent, and given to the container's user while it is empty
}

// State is where a container is in its life.
type State string

// The states. A container whose node rebooted under it is Exited with
// ExitCode -1.
const (
	Created State = "created"
	Running State = "running"
	Exited  State = "exited"
)

// Status is what is known of a container.
type Status struct {
	ID         string
	Image      string            // reference, "" for a RootFS container
	Digest     string            // digest of the image's manifest
	Labels     map[string]string // from Spec
	State      State
	PID        int // of the first process on the node; 0 unless Created or Running
	ExitCode   int // 128+n after signal n; -1 if unknown; valid when Exited
	OOMKilled  bool
	Stopped    bool // by Stop, also by that of an earlier daemon: it did not end by itself; valid when Exited
	StartedAt  time.Time
	ExitedAt   time.Time // valid when Exited
	CgroupPath string
	LogPath    string // of a journal
	SpecHash   string // changes when the Spec that started the container does
}

// EventType says what happened.
type EventType string

// The events.
const (
	EventStarted EventType = "started"
	EventExited  EventType = "exited"
	EventDeleted EventType = "deleted"
	EventOOM     EventType = "oom"
)

// Event reports a change. Events may be lost when the receiver is slow or the
// process restarts: Status has the truth.
type Event struct {
	Type     EventType
	ID       string
	ExitCode int // valid for EventExited
	Time     time.Time
}

// Signals that Kill takes most often.
const (
	Terminate = syscall.SIGTERM
	Abort     = syscall.SIGKILL
)
