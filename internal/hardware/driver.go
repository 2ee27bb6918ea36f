package hardware

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"time"
)

// DriverSchema names the documents that a driver program reads and prints.
const DriverSchema = "oscine.dev/driver/v1"

// Bounds of a driver program.
const (
	// driverTimeout allows for GPUs that a driver wakes one by one, a second
	// or two each.
	driverTimeout = 30 * time.Second
	// shareTimeout is longer: switching a GPU's MIG mode resets it.
	shareTimeout  = 60 * time.Second
	maxDriverSays = 4 << 20
	maxEventLine  = 64 << 10
)

// DriverReport is what a driver program says: what it knows better of devices
// on the map, and devices that only it knows (a quantum processor behind a
// network, a board on a serial line).
type DriverReport struct {
	Schema string `json:"schema"`
	// Verbs are what the program can do beside probe: load, events, share.
	Verbs []string `json:"verbs,omitempty"`
	// Devices have Bus and Address of a device on the map, or of a new one;
	// fields left empty say nothing.
	Devices []Accelerator `json:"devices"`
	Links   []Link        `json:"links,omitempty"`
	Pairs   []Pair        `json:"pairs,omitempty"`
}

// LoadReport is what a driver program prints for load: the loads of its devices
// by their address.
type LoadReport struct {
	Schema  string                `json:"schema"`
	Devices map[string]DeviceLoad `json:"devices"`
}

// DriverEvent is a line that a driver program prints for events.
type DriverEvent struct {
	Device    string `json:"device"`              // its address
	Partition string `json:"partition,omitempty"` // as mig1-0; "" for the whole
	Kind      string `json:"kind"`                // xid, ecc, clocks or what the driver names
	Code      int    `json:"code,omitempty"`
	State     string `json:"state,omitempty"` // degraded or lost
	Text      string `json:"text"`
}

// The actions of a ShareRequest.
const (
	SharePartition   = "partition"   // make a partition of a profile at a place
	ShareUnpartition = "unpartition" // remove it
	ShareWhole       = "whole"       // one device for any number of processes
	ShareExclusive   = "exclusive"   // one device for one process
	ShareMPS         = "mps"         // processes side by side, each with its part
	ShareIdle        = "idle"        // as before the first of these
)

// ShareRequest asks a driver program to divide a device. A program does all of
// it or nothing, and does nothing if it is done already.
type ShareRequest struct {
	Schema  string `json:"schema"`
	Device  string `json:"device"` // its address
	Action  string `json:"action"`
	Profile string `json:"profile,omitempty"` // of partition and unpartition
	Start   int    `json:"start,omitempty"`
	// Directory is where a program keeps what is shared with the users of the
	// device, such as MPS's pipes; it is the device's own.
	Directory string `json:"directory,omitempty"`
	// Limit is the most that one user of mps may get, User what the user gets
	// that is to come, nil where one has left.
	Limit ShareAmount  `json:"limit,omitzero"`
	User  *ShareAmount `json:"user,omitempty"`
}

// ShareAmount is a part of a device.
type ShareAmount struct {
	Percent     int   `json:"percent,omitempty"` // of the processors
	Memory      Bytes `json:"memory,omitempty"`  // 0: not limited
	LowPriority bool  `json:"lowPriority,omitempty"`
}

// ShareAnswer is what a driver program prints after it divided a device.
type ShareAnswer struct {
	Schema    string     `json:"schema"`
	Partition *Partition `json:"partition,omitempty"` // of the action partition
	// Env and Mounts are what the user's container needs beside the device:
	// NAME=value, and folders below the request's Directory.
	Env    []string     `json:"env,omitempty"`
	Mounts []ShareMount `json:"mounts,omitempty"`
}

// ShareMount is a folder of the host in a container.
type ShareMount struct {
	Source string `json:"source"`
	Target string `json:"target"`
}

// check refuses an answer that would open more of the host than was asked for.
func (a *ShareAnswer) check(directory string) error {
	for _, m := range a.Mounts {
		below, err := filepath.Rel(directory, m.Source)
		if directory == "" || err != nil || below == "." || !filepath.IsLocal(below) || !filepath.IsAbs(m.Target) {
			return fmt.Errorf("driver program wants %s mounted at %s: it may have folders below %q alone", clip(m.Source), clip(m.Target), directory)
		}
	}
	for _, e := range a.Env {
		if name, _, ok := strings.Cut(e, "="); !ok || name == "" {
			return fmt.Errorf("driver program wants the environment %q: NAME=value is needed", clip(e))
		}
	}
	return nil
}

// Driver is a driver program that answered, with what it can do and the
// addresses of its devices.
type Driver struct {
	Program string
	Verbs   []string
	Devices []string
}

// Can reports whether the program has a verb beside probe.
func (d *Driver) Can(verb string) bool { return slices.Contains(d.Verbs, verb) }

// DriverPrograms lists the programs of a directory. It refuses a directory or
// program that others than root, or this process's user, may write to: they
// run with the daemon's rights.
func DriverPrograms(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("driver programs: %w", err)
	}
	if err := trusted(dir); err != nil {
		return nil, err
	}
	var programs []string
	for _, e := range entries {
		program := filepath.Join(dir, e.Name())
		info, err := e.Info()
		if err != nil || !info.Mode().IsRegular() || info.Mode()&0o111 == 0 {
			continue
		}
		if err := trusted(program); err != nil {
			return programs, err
		}
		programs = append(programs, program)
	}
	return programs, nil
}

func trusted(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("driver programs: %w", err)
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok || info.Mode()&0o022 != 0 || owner.Uid != 0 && int(owner.Uid) != os.Geteuid() {
		return fmt.Errorf("driver programs: %s can be changed by others than root: give it to root and take away their right to write (chown root, chmod go-w)", path)
	}
	return nil
}

// Companions lists the driver programs that come with Oscine and lie beside the
// running program, for those devices that are on the map: oscine-nvml for
// NVIDIA's GPUs. They are trusted as the running program itself is.
func Companions(m *Machine) []string {
	self, err := os.Executable()
	if err != nil || !slices.ContainsFunc(m.PCI, func(d PCIDevice) bool { return d.Vendor == "10de" && m.Accelerator(d.Address) != nil }) {
		return nil
	}
	beside := filepath.Join(filepath.Dir(self), "oscine-nvml")
	if info, err := os.Stat(beside); err != nil || info.Mode()&0o111 == 0 {
		return nil
	}
	return []string{beside}
}

// AskDrivers runs driver programs, as packs bring them, merges what they report
// into the map and returns those that answered. A program is called as
//
//	PROGRAM probe
//
// with the map's JSON on its input, prints a DriverReport, and ends within thirty
// seconds. One that fails leaves a gap and nothing else. Only programs that
// root alone can write to may be given here; see DriverPrograms.
func AskDrivers(ctx context.Context, m *Machine, programs ...string) ([]Driver, error) {
	if len(programs) == 0 {
		return nil, nil
	}
	input, err := Encode(m)
	if err != nil {
		return nil, err
	}
	var all []Driver
	for _, program := range programs {
		var report DriverReport
		err := run(ctx, driverTimeout, program, "probe", input, &report)
		if err == nil && report.Schema != DriverSchema {
			err = fmt.Errorf("driver program speaks %q, not %s", clip(report.Schema), DriverSchema)
		}
		if err != nil {
			m.Gaps = append(m.Gaps, Gap{Path: program, Reason: err.Error()})
			continue
		}
		d := Driver{Program: program, Verbs: report.Verbs}
		for _, a := range report.Devices {
			d.Devices = append(d.Devices, a.Address)
		}
		all = append(all, d)
		merge(m, &report, program)
	}
	return all, ctx.Err()
}

// spoken refuses answers in another language.
func spoken(schema string) error {
	if schema == DriverSchema {
		return nil
	}
	return fmt.Errorf("driver program speaks %q, not %s", clip(schema), DriverSchema)
}

// Load asks for the loads of the driver's devices now, by their addresses.
func (d *Driver) Load(ctx context.Context) (map[string]DeviceLoad, error) {
	var report LoadReport
	input, err := json.Marshal(d.Devices)
	if err == nil {
		err = run(ctx, driverTimeout, d.Program, "load", input, &report)
	}
	if err != nil {
		return nil, err
	}
	return report.Devices, spoken(report.Schema)
}

// AskLoads asks all drivers that can tell for the loads of their devices, by
// the devices' IDs. A driver that fails reports nothing.
func AskLoads(ctx context.Context, m *Machine, drivers []Driver) map[string]DeviceLoad {
	all := map[string]DeviceLoad{}
	for i := range drivers {
		if !drivers[i].Can("load") {
			continue
		}
		loads, err := drivers[i].Load(ctx)
		if err != nil {
			continue
		}
		for address, load := range loads {
			if a := m.Accelerator(address); a != nil && slices.Contains(drivers[i].Devices, address) {
				all[a.ID] = load
			}
		}
	}
	return all
}

// Share has the driver divide a device.
func (d *Driver) Share(ctx context.Context, r ShareRequest) (ShareAnswer, error) {
	r.Schema = DriverSchema
	var answer ShareAnswer
	input, err := json.Marshal(r)
	if err == nil {
		err = run(ctx, shareTimeout, d.Program, "share", input, &answer)
	}
	if err == nil {
		err = spoken(answer.Schema)
	}
	if err == nil {
		err = answer.check(r.Directory)
	}
	return answer, err
}

// Events calls f for every event of the driver's devices until ctx ends or the
// program does. The program ends when its input does.
func (d *Driver) Events(ctx context.Context, f func(DriverEvent)) error {
	c := driverCommand(ctx, d.Program, "events")
	out, err := c.StdoutPipe()
	if err != nil {
		return err
	}
	in, err := c.StdinPipe()
	if err != nil {
		return err
	}
	var complaint clipped
	c.Stderr = &complaint
	// It gets the chance to take its registrations back.
	c.Cancel = func() error { return in.Close() }
	if err := c.Start(); err != nil {
		return fmt.Errorf("driver program: %w", err)
	}
	devices, err := json.Marshal(d.Devices)
	if err == nil {
		_, err = in.Write(append(devices, '\n'))
	}
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, maxEventLine)
	for err == nil && lines.Scan() {
		var e DriverEvent
		if e, err = parseDriverEvent(lines.Bytes()); err == nil {
			f(e)
		}
	}
	_ = in.Close()
	_, _ = io.Copy(io.Discard, out) // so that it can end
	if ended := c.Wait(); ctx.Err() == nil {
		return complaint.explain(d.Program+" events", errors.Join(err, lines.Err(), ended))
	}
	return nil
}

// parseDriverEvent reads one line of a program's verb events.
func parseDriverEvent(line []byte) (DriverEvent, error) {
	var e DriverEvent
	err := json.Unmarshal(line, &e)
	e.Text, e.Kind = clip(e.Text), clip(e.Kind)
	clean(reflect.ValueOf(&e))
	return e, err
}

// run calls a verb of a program and decodes what it prints.
func run(ctx context.Context, limit time.Duration, program, verb string, input []byte, into any) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var out capped
	var complaint clipped
	c := driverCommand(ctx, program, verb)
	c.Stdin = bytes.NewReader(input)
	c.Stdout, c.Stderr = &out, &complaint
	if err := c.Run(); err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("no answer within %v", limit)
		}
		return complaint.explain("driver program", err)
	}
	if err := json.Unmarshal(out.data, into); err != nil {
		return fmt.Errorf("driver program printed no answer to %s: %w", verb, err)
	}
	return nil
}

func driverCommand(ctx context.Context, program, verb string) *exec.Cmd {
	c := exec.CommandContext(ctx, program, verb)
	c.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"}
	c.Dir = "/"
	c.WaitDelay = time.Second
	return c
}

// capped keeps output up to maxDriverSays.
type capped struct{ data []byte }

func (b *capped) Write(p []byte) (int, error) {
	if len(b.data)+len(p) > maxDriverSays {
		return 0, fmt.Errorf("more than %d bytes", maxDriverSays)
	}
	b.data = append(b.data, p...)
	return len(p), nil
}

// clipped keeps the beginning of what a program complains of.
type clipped struct{ data []byte }

func (c *clipped) Write(p []byte) (int, error) {
	const most = 1024
	c.data = append(c.data, p[:min(len(p), most-len(c.data))]...)
	return len(p), nil
}

// explain adds the program's own words to how it ended.
func (c *clipped) explain(what string, err error) error {
	text := strings.TrimSpace(strings.Map(func(r rune) rune {
		if r < ' ' && r != '\n' {
			return -1
		}
		return r
	}, string(c.data)))
	var exit *exec.ExitError
	switch {
	case err == nil:
		return nil
	case text != "" && errors.As(err, &exit):
		return fmt.Errorf("%s", text) // it has said all there is to say
	case text != "":
		return fmt.Errorf("%s: %w: %s", what, err, text)
	}
	return fmt.Errorf("%s: %w", what, err)
}
