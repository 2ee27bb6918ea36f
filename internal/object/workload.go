package object

import (
	"fmt"
	"path"
	"strings"
	"time"

	"oscine.dev/oscine/internal/pattern"
)

// KindWorkload is the kind of Workload.
const KindWorkload Kind = "Workload"

func workloadKind() Definition {
	return Definition{
		Kind: KindWorkload, Aliases: []string{"wl"},
		New:       func() Object { return &Workload{} },
		NewStatus: func() Status { return &WorkloadStatus{} },
		Columns: []Column{
			column("ADDRESS", func(st *WorkloadStatus) string { return st.Address }),
		},
	}
}

// Class is a latency class.
type Class string

// The classes, from the strictest promise to none.
const (
	Realtime    Class = "realtime"
	Interactive Class = "interactive"
	Batch       Class = "batch"
)

// RestartPolicy says when a workload that ended is started again.
type RestartPolicy string

// The restart policies.
const (
	RestartAlways    RestartPolicy = "always"
	RestartOnFailure RestartPolicy = "on-failure"
	RestartNever     RestartPolicy = "never"
)

// Workload is a container with a class and resources.
type Workload struct {
	Header
	Spec WorkloadSpec `json:"spec"`
}

// WorkloadStatus is a workload's present state.
type WorkloadStatus struct {
	Observed
	PID       int             `json:"pid,omitempty"`
	ExitCode  *int            `json:"exitCode,omitempty"` // of the last run that ended
	OOMKilled bool            `json:"oomKilled,omitempty"`
	Address   string          `json:"address,omitempty"` // on the workload network
	Digest    string          `json:"digest,omitempty"`  // of the image
	Storage   []StorageStatus `json:"storage,omitempty"` // on the data partition
}

// WorkloadSpec is what a workload asks for.
type WorkloadSpec struct {
	Class      Class             `json:"class,omitempty"`      // default interactive
	Image      string            `json:"image,omitempty"`      // OCI reference, pulled or imported; required without a pack
	Pack       string            `json:"pack,omitempty"`       // in place of an image: an installed pack that holds a tool, which is run
	Command    []string          `json:"command,omitempty"`    // replaces the image's entrypoint
	Args       []string          `json:"args,omitempty"`       // replaces the image's command
	Env        map[string]string `json:"env,omitempty"`        // added to the image's environment
	SecretEnv  map[string]string `json:"secretEnv,omitempty"`  // variable → SECRET/ENTRY; a changed Secret restarts the workload
	WorkingDir string            `json:"workingDir,omitempty"` // default: the image's
	// StartOnAttach makes the container wait: its program starts when someone attaches to
	// it, as oscine run -it does.
	StartOnAttach bool      `json:"startOnAttach,omitempty"`
	User          string    `json:"user,omitempty"` // uid[:gid]; default: the image's, never 0 unless asked
	Resources     Resources `json:"resources,omitzero"`
	Ports         []Port    `json:"ports,omitempty"`
	Volumes       []Volume  `json:"volumes,omitempty"`
	// Inference gives the workload the node's models: a socket at
	// /run/oscine/inference.sock that speaks all protocols of inference.
	Inference bool          `json:"inference,omitempty"`
	Secrets   []SecretMount `json:"secrets,omitempty"` // Secrets mounted as files, which are rewritten when a Secret changes
	Restart   RestartPolicy `json:"restart,omitempty"` // default always
	Health    *Health       `json:"health,omitempty"`
	Security  Security      `json:"security,omitzero"`
	StopGrace Duration      `json:"stopGrace,omitzero"` // from SIGTERM to SIGKILL; default 10s, at most 1h
}

// Port publishes a container port on the node.
type Port struct {
	Name     string `json:"name,omitempty"`     // for people
	Port     int    `json:"port"`               // in the container
	HostPort int    `json:"hostPort,omitempty"` // on the node; 0 means the same number
	Protocol string `json:"protocol,omitempty"` // tcp (default) or udp
}

// Volume is a directory on the data partition that outlives the container.
type Volume struct {
	Name     string `json:"name"`               // of the volume; workloads that name the same share it
	Path     string `json:"path"`               // absolute, in the container
	ReadOnly bool   `json:"readOnly,omitempty"` // for this workload

	Size Quantity `json:"size,omitzero"` // bytes that it may hold; absent: what the disk has
}

// Health says how to tell that a workload works. Exactly one of HTTP, TCP and
// Exec is given.
type Health struct {
	HTTP        *HTTPCheck `json:"http,omitempty"`
	TCP         *TCPCheck  `json:"tcp,omitempty"`
	Exec        []string   `json:"exec,omitempty"`       // a command in the container that exits with 0
	Interval    Duration   `json:"interval,omitzero"`    // default 10s
	Timeout     Duration   `json:"timeout,omitzero"`     // default 2s
	Retries     int        `json:"retries,omitempty"`    // failures in a row before a restart; default 3
	StartPeriod Duration   `json:"startPeriod,omitzero"` // failures that don't count after a start; default 10s
}

// HTTPCheck is healthy on a status from 200 to 399.
type HTTPCheck struct {
	Path string `json:"path,omitempty"` // default /
	Port int    `json:"port"`           // in the container
}

// TCPCheck is healthy when the port accepts a connection.
type TCPCheck struct {
	Port int `json:"port"` // in the container
}

// Security loosens what a workload may do. The zero value is the default: no
// root, no capability, read-only root, own user namespace, seccomp filter.
type Security struct {
	AllowRoot       bool     `json:"allowRoot,omitempty"`       // run as the image's root, still in a user namespace
	WritableRoot    bool     `json:"writableRoot,omitempty"`    // a throw-away writable layer over the image
	AddCapabilities []string `json:"addCapabilities,omitempty"` // such as NET_BIND_SERVICE
	NodeAPI         bool     `json:"nodeAPI,omitempty"`         // reach the port of the node's API; it needs credentials of its own there
}

// Resources implements Placeable.
func (w *Workload) Resources() *Resources { return &w.Spec.Resources }

// Class implements Placeable.
func (w *Workload) Class() Class { return w.Spec.Class }

// Ports implements Publisher.
func (w *Workload) Ports() []Port { return w.Spec.Ports }

// SetDefaults implements Object.
func (w *Workload) SetDefaults() {
	s := &w.Spec
	setDefault(&s.Class, Interactive)
	setDefault(&s.Restart, RestartAlways)
	setDefault(&s.StopGrace, Duration(10*time.Second))
	for i := range s.Ports {
		setDefault(&s.Ports[i].Protocol, "tcp")
		setDefault(&s.Ports[i].HostPort, s.Ports[i].Port)
	}
	if h := s.Health; h != nil {
		setDefault(&h.Interval, Duration(10*time.Second))
		setDefault(&h.Timeout, Duration(2*time.Second))
		setDefault(&h.Retries, 3)
		setDefault(&h.StartPeriod, Duration(10*time.Second))
		if h.HTTP != nil {
			setDefault(&h.HTTP.Path, "/")
		}
	}
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

var (
	imageRE      = pattern.New(`^[a-z0-9]([a-zA-Z0-9._:/@-]{0,510})$`)
	userRE       = pattern.New(`^[0-9]{1,9}(:[0-9]{1,9})?$`)
	envRE        = pattern.New(`^[A-Za-z_][A-Za-z0-9_.-]{0,254}$`)
	capabilityRE = pattern.New(`^[A-Z][A-Z_]{2,30}$`)
)

// maxStopGrace bounds how long a workload may take to end: a deletion waits for
// it.
const maxStopGrace = time.Hour

// Check implements Object.
func (w *Workload) Check(c *Checker) {
	s := &w.Spec
	c.Class(s.Class)
	switch {
	case s.Image != "" && s.Pack != "":
		c.Bad("spec.pack", "takes the place of spec.image: give one of them")
	case s.Pack != "":
		if err := CheckName(s.Pack); err != nil {
			c.Bad("spec.pack", "%v", err)
		}
	case s.Image == "":
		c.Bad("spec.image", "is required, such as docker.io/library/nginx:1.27")
	case !imageRE.MatchString(s.Image):
		c.Bad("spec.image", "%q is not an image reference", s.Image)
	}
	c.OneOf("spec.restart", string(s.Restart), "always", "on-failure", "never")
	if s.User != "" && !userRE.MatchString(s.User) {
		c.Bad("spec.user", "must be uid or uid:gid in digits, got %q", s.User)
	}
	if (s.User == "0" || strings.HasPrefix(s.User, "0:")) && !s.Security.AllowRoot {
		c.Bad("spec.user", "0 is root; set spec.security.allowRoot: true to allow it")
	}
	if s.WorkingDir != "" && !path.IsAbs(s.WorkingDir) {
		c.Bad("spec.workingDir", "must be an absolute path, got %q", s.WorkingDir)
	}
	for name := range s.Env {
		if !envRE.MatchString(name) {
			c.Bad("spec.env."+name, "is not a name for an environment variable")
		}
	}
	for i, name := range s.Security.AddCapabilities {
		if !capabilityRE.MatchString(name) || strings.HasPrefix(name, "CAP_") {
			c.Bad(fmt.Sprintf("spec.security.addCapabilities[%d]", i), "must be a capability without CAP_, such as NET_BIND_SERVICE, got %q", name)
		}
	}
	s.Resources.Check(c, "spec.resources", s.Class)
	checkPorts(c, s.Ports)
	checkVolumes(c, s.Volumes)
	checkSecrets(c, s)
	s.Health.check(c, "spec.health")
	c.Duration("spec.stopGrace", s.StopGrace, 0, maxStopGrace)
}

func checkPorts(c *Checker, ports []Port) {
	taken := map[string]string{}
	for i, p := range ports {
		at := fmt.Sprintf("spec.ports[%d]", i)
		c.Port(at+".port", p.Port)
		if p.HostPort != 0 {
			c.Port(at+".hostPort", p.HostPort)
		}
		c.OneOf(at+".protocol", p.Protocol, "tcp", "udp")
		host, protocol := p.HostPort, p.Protocol
		setDefault(&host, p.Port)
		setDefault(&protocol, "tcp")
		key := fmt.Sprintf("%s/%d", protocol, host)
		if first, ok := taken[key]; ok {
			c.Bad(at, "publishes %s, which %s publishes already", key, first)
		}
		taken[key] = at
	}
}

func checkVolumes(c *Checker, volumes []Volume) {
	paths := map[string]bool{}
	for i, v := range volumes {
		at := fmt.Sprintf("spec.volumes[%d]", i)
		if err := CheckName(v.Name); err != nil {
			c.Bad(at+".name", "%v", err)
		}
		if !path.IsAbs(v.Path) || path.Clean(v.Path) == "/" {
			c.Bad(at+".path", "must be an absolute path other than /, got %q", v.Path)
		}
		checkBytes(c, at+".size", v.Size)
		if paths[path.Clean(v.Path)] {
			c.Bad(at+".path", "%q is mounted twice", v.Path)
		}
		paths[path.Clean(v.Path)] = true
	}
}

// maxRetries bounds the failures in a row before a restart.
const maxRetries = 1000

func (h *Health) check(c *Checker, at string) {
	if h == nil {
		return
	}
	given := 0
	if h.HTTP != nil {
		given++
		c.Port(at+".http.port", h.HTTP.Port)
		if h.HTTP.Path != "" && !strings.HasPrefix(h.HTTP.Path, "/") {
			c.Bad(at+".http.path", "must begin with /, got %q", h.HTTP.Path)
		}
	}
	if h.TCP != nil {
		given++
		c.Port(at+".tcp.port", h.TCP.Port)
	}
	if len(h.Exec) > 0 {
		given++
	}
	if given != 1 {
		c.Bad(at, "needs exactly one of http, tcp and exec, got %d", given)
	}
	c.Number(at+".retries", int64(h.Retries), 1, maxRetries)
	c.Duration(at+".interval", h.Interval, 100*time.Millisecond, 24*time.Hour)
	c.Duration(at+".timeout", h.Timeout, time.Millisecond, time.Hour)
	c.Duration(at+".startPeriod", h.StartPeriod, 0, 24*time.Hour)
}
