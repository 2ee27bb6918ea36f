package node

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/singleflight"
	"golang.org/x/sys/unix"

	"oscine.dev/oscine/internal/disk"
	"oscine.dev/oscine/internal/doctor"
	"oscine.dev/oscine/internal/hardware"
	"oscine.dev/oscine/internal/network"
	"oscine.dev/oscine/internal/node/identity"
	"oscine.dev/oscine/internal/pki"
	"oscine.dev/oscine/internal/update/slot"
)

// Info is what a node is.
type Info struct {
	Name, Version, Kernel, Architecture string
	Mode                                Mode
	Slot                                string // root-a or root-b on the image
	Booted                              time.Time
	Uptime                              time.Duration // of the kernel
	Ready                               time.Duration // kernel uptime when the API began to answer
	Missing                             []string      // what this host cannot guarantee, and why
	Processes                           []Process
	Encryption                          *Encryption    // nil where the data partition is not encrypted
	Disk                                disk.Space     // where the node keeps what it stores
	Slots                               []slot.Version // the running one first; nil where the machine is not ours
	Links                               []network.LinkState
	Certificate                         Certificate // by which clients recognise the node
}

// Certificate is that of the node itself.
type Certificate struct {
	Serial   string // as pki.Serial writes it
	NotAfter time.Time
	Problem  string // that it has expired, or is about to; empty for none
}

// Process is one of Oscine's own processes.
type Process struct {
	Name  string
	Bytes int64 // proportional set size
}

// MarkReady notes that the API answers now. With it the checks of a version on
// trial begin.
func (n *Node) MarkReady() {
	up, err := kernelUptime()
	if err == nil {
		n.ready.CompareAndSwap(0, int64(n.firstReady(up)))
	}
	n.upgrading.Do(func() {
		n.wg.Go(func() {
			n.dropStaleReset()
			n.upgrades.Run(n.life)
		})
	})
}

// readyFile keeps when the API first answered over restarts of the daemon. It is lost
// with the kernel that it counts from.
const readyFile = "ready"

// firstReady is the kernel uptime when the API first answered, now at the latest.
func (n *Node) firstReady(now time.Duration) time.Duration {
	file := filepath.Join(n.config.RunDir, readyFile)
	if raw, err := os.ReadFile(file); err == nil {
		if first, err := time.ParseDuration(string(raw)); err == nil && first < now {
			return first
		}
	}
	if err := os.WriteFile(file, []byte(now.String()), 0o600); err != nil {
		n.log.Warn("keep when the API first answered", "error", err)
	}
	return now
}

// certificate tells of the node's own.
func (n *Node) certificate() Certificate {
	leaf := n.identity.Leaf()
	c := Certificate{Serial: pki.Serial(leaf), NotAfter: leaf.NotAfter}
	if reason, message := n.identity.State(time.Now()); reason != "" {
		c.Problem = message + ": " + identity.HowToRenew
	}
	return c
}

// Info describes the node.
func (n *Node) Info() Info {
	up, _ := kernelUptime() // 0 where even that fails
	info := Info{
		Name: n.machine.Key().Name, Version: n.config.Version, Architecture: runtime.GOARCH,
		Mode: n.config.Mode, Slot: n.config.Slot, Booted: time.Now().Add(-up), Uptime: up,
		Ready: time.Duration(n.ready.Load()), Missing: append(n.runtime.Missing(), n.isolationGaps()...), Processes: systemProcesses(),
	}
	info.Kernel = kernelRelease()
	if space, err := n.disk.Space(); err == nil {
		info.Disk = space
	}
	if slots, ok := n.upgrades.Known(); ok {
		info.Slots = []slot.Version{slots.Active, slots.Idle}
	}
	info.Certificate = n.certificate()
	info.Encryption = n.encryption()
	if n.config.Network != nil {
		info.Links = n.config.Network().Links
	}
	return info
}

// kernelRelease is the kernel's version, "" where even that is not told.
func kernelRelease() string {
	var uts unix.Utsname
	if unix.Uname(&uts) != nil {
		return ""
	}
	return unix.ByteSliceToString(uts.Release[:])
}

// Doctor probes what this host can do. It returns nil when ctx ends first.
func (n *Node) Doctor(ctx context.Context) []doctor.Capability {
	return n.probes.run(ctx, func() []doctor.Capability { return append(doctor.Run(n.life, sysRoot), n.certificateCapability()) })
}

// certificateCapability says whether clients will recognise the node for a while.
func (n *Node) certificateCapability() doctor.Capability {
	reason, message := n.identity.State(time.Now())
	c := doctor.Capability{Name: "node certificate", Available: reason == "", Detail: message, NeededFor: "clients, which refuse a node whose certificate has expired"}
	if !c.Available {
		c.Remedy = identity.HowToRenew
	}
	return c
}

// probes lets callers that ask at the same time share one run of the probes,
// which start programs and load the machine.
type probes struct{ group singleflight.Group }

func (p *probes) run(ctx context.Context, probe func() []doctor.Capability) []doctor.Capability {
	done := p.group.DoChan("", func() (any, error) { return probe(), nil })
	select {
	case result := <-done:
		found, _ := result.Val.([]doctor.Capability)
		return found
	case <-ctx.Done():
		return nil
	}
}

// Hardware returns the map of the machine as the JSON document of
// internal/hardware: the one that is kept up to date, for only that has the
// devices that were lost.
func (n *Node) Hardware(ctx context.Context) ([]byte, error) {
	m := n.live.Machine()
	if m == nil { // in the first moment
		found, err := hardware.Discover(sysRoot)
		if err != nil {
			return nil, err
		}
		m = n.drivers.Complete(ctx, found)
	}
	return hardware.Encode(m)
}

// WatchHardware calls f with the map of the machine, with each change of it
// and, where every is not 0, that often with the load since the last time, until
// ctx ends or f fails.
func (n *Node) WatchHardware(ctx context.Context, every time.Duration, f func(hardware.News) error) error {
	err := n.live.Follow(ctx, every, f)
	switch {
	case errors.Is(err, hardware.ErrLoadInterval):
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	case errors.Is(err, hardware.ErrFollowers):
		return fmt.Errorf("%w: %w", ErrConflict, err)
	case err == nil:
		return ctx.Err()
	}
	return err
}

// RecordHardware writes an archive of what the map of the machine is read from,
// without what names this one machine. There is one recording at a time, for
// it reads all of sysfs that matters; another is refused with ErrConflict.
func (n *Node) RecordHardware(w io.Writer) (hardware.Recorded, error) {
	if !n.recording.TryLock() {
		return hardware.Recorded{}, fmt.Errorf("%w: someone records this machine already: try again in a moment", ErrConflict)
	}
	defer n.recording.Unlock()
	return hardware.Record(sysRoot, w)
}

// systemPrograms are the programs whose memory counts as the system's.
var systemPrograms = []string{"init", "oscined", "oscine-log", "containerd-shim-runc-v2", "containerd-shim"}

// systemProcesses lists Oscine's own processes with their memory, shared pages
// counted in proportion.
func systemProcesses() []Process {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil
	}
	var list []Process
	for _, dir := range dirs {
		target, err := os.Readlink(dir + "/exe")
		if err != nil || !slices.Contains(systemPrograms, filepath.Base(target)) {
			continue // a kernel thread, gone meanwhile, or somebody else's
		}
		if bytes, err := proportionalSetSize(dir + "/smaps_rollup"); err == nil {
			list = append(list, Process{fmt.Sprintf("%s (%s)", filepath.Base(target), filepath.Base(dir)), bytes})
		}
	}
	return list
}

func proportionalSetSize(file string) (int64, error) {
	f, err := os.Open(file)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if rest, ok := strings.CutPrefix(lines.Text(), "Pss:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("%s has no Pss", file)
}

// Reboot asks PID 1 to restart the machine, or to switch it off.
func (n *Node) Reboot(powerOff bool) error {
	if n.config.Reboot == nil {
		return fmt.Errorf("%w: this node is hosted on another Linux: reboot that", ErrConflict)
	}
	return n.config.Reboot(powerOff)
}
