package hardware

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// DriverSchema names the document that a driver program prints.
const DriverSchema = "oscine.dev/driver/v1"

// Bounds of a driver program.
const (
	driverTimeout = 10 * time.Second
	maxDriverSays = 4 << 20
)

// DriverReport is what a driver program says: what it knows better of devices
// on the map, and devices that only it knows (a quantum processor behind a
// network, a board on a serial line).
type DriverReport struct {
	Schema string `json:"schema"`
	// Devices have Bus and Address of a device on the map, or of a new one;
	// fields left empty say nothing.
	Devices []Accelerator `json:"devices"`
	Links   []Link        `json:"links"`
}

// AskDrivers runs the driver programs of the given directories, as packs bring
// them, and merges what they report into the map. A program is called as
//
//	PROGRAM probe
//
// with the map's JSON on its input, prints a DriverReport, and ends within ten
// seconds. One that fails leaves a gap and nothing else. Only programs of
// directories that root alone can write to may be given here.
func AskDrivers(ctx context.Context, m *Machine, directories ...string) error {
	input, err := Encode(m)
	if err != nil {
		return err
	}
	for _, dir := range directories {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("driver programs: %w", err)
		}
		for _, e := range entries {
			info, err := e.Info()
			if err != nil || !info.Mode().IsRegular() || info.Mode()&0o111 == 0 {
				continue
			}
			program := filepath.Join(dir, e.Name())
			report, err := askDriver(ctx, program, input)
			if err != nil {
				m.Gaps = append(m.Gaps, Gap{Path: program, Reason: err.Error()})
				continue
			}
			merge(m, report, program)
		}
	}
	return ctx.Err()
}

func askDriver(ctx context.Context, program string, input []byte) (*DriverReport, error) {
	ctx, cancel := context.WithTimeout(ctx, driverTimeout)
	defer cancel()
	var out bounded
	c := exec.CommandContext(ctx, program, "probe")
	c.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"}
	c.Stdin = bytes.NewReader(input)
	c.Stdout = &out
	c.WaitDelay = time.Second
	if err := c.Run(); err != nil {
		return nil, fmt.Errorf("driver program: %w", err)
	}
	var report DriverReport
	if err := json.Unmarshal(out.data, &report); err != nil {
		return nil, fmt.Errorf("driver program printed no report: %w", err)
	}
	if report.Schema != DriverSchema {
		return nil, fmt.Errorf("driver program speaks %q, not %s", clip(report.Schema), DriverSchema)
	}
	return &report, nil
}

// bounded keeps output up to maxDriverSays.
type bounded struct{ data []byte }

func (b *bounded) Write(p []byte) (int, error) {
	if len(b.data)+len(p) > maxDriverSays {
		return 0, fmt.Errorf("more than %d bytes", maxDriverSays)
	}
	b.data = append(b.data, p...)
	return len(p), nil
}

var kindRule = regexp.MustCompile(`^[a-z][a-z-]{0,30}$`)

// merge takes a report into the map.
func merge(m *Machine, report *DriverReport, program string) {
	s := &scan{m: m}
	if m.Facts == nil {
		m.Facts = map[string][]Fact{}
	}
	for _, d := range report.Devices {
		a := m.accelerator(d.Address)
		if a == nil {
			if !kindRule.MatchString(d.Kind) || d.Address == "" {
				s.gap(program, "a device without kind or address was left out")
				continue
			}
			d.ID = freeID(m, d.Kind)
			d.Bus = firstOf(d.Bus, "virtual")
			if d.Health.State == "" {
				d.Health.State = "ok"
			}
			if d.LocalCPUs.Empty() {
				d.LocalCPUs, d.LocalNodes, d.Node = m.Online, s.nodeSet(), -1
			}
			m.Accelerators = append(m.Accelerators, d)
			a = &m.Accelerators[len(m.Accelerators)-1]
		} else {
			a.adopt(d)
		}
		a.DeviceNodes = slices.DeleteFunc(slices.Clone(a.DeviceNodes), func(n string) bool {
			return !strings.HasPrefix(filepath.Clean(n), "/dev/")
		})
		for p := range a.Partitions {
			if !strings.HasPrefix(a.Partitions[p].ID, a.ID+"-") {
				a.Partitions[p].ID = a.ID + "-" + a.Partitions[p].ID
			}
		}
		m.Facts[a.ID] = append(m.Facts[a.ID], Fact{Name: "driver program", Value: firstOf(d.DriverVersion, d.Model, "reported"), Path: program})
		extra := a.Attributes
		s.finish(a)
		for name, value := range d.Attributes {
			if _, ours := a.Attributes[name]; !ours {
				a.Attributes[name] = value
			}
		}
		for name, value := range extra {
			if _, ours := a.Attributes[name]; !ours {
				a.Attributes[name] = value
			}
		}
	}
	for _, l := range report.Links {
		l.A, l.B, l.Source = s.nameOf(l.A), s.nameOf(l.B), program
		if l.A != l.B && l.Kind != "" && m.linkBetween(l.A, l.B) == nil {
			m.Links = append(m.Links, l)
		}
	}
	sortAccelerators(m)
}

// adopt takes over what a report says of a known device.
func (a *Accelerator) adopt(d Accelerator) {
	for _, field := range []struct {
		to   *string
		from string
	}{
		{&a.Vendor, d.Vendor}, {&a.Model, d.Model}, {&a.DriverVersion, d.DriverVersion},
		{&a.Firmware, d.Firmware}, {&a.Architecture, d.Architecture},
	} {
		if field.from != "" {
			*field.to = field.from
		}
	}
	if d.Memory > 0 {
		a.Memory = d.Memory
	}
	if d.DeviceNodes != nil {
		a.DeviceNodes = d.DeviceNodes
	}
	if d.Partitions != nil {
		a.Partitions = d.Partitions
	}
	if d.PartitionModes != nil {
		a.PartitionModes = d.PartitionModes
	}
	if d.Health.State != "" {
		a.Health = d.Health
	}
	if d.Missing != nil {
		a.Missing = d.Missing
	}
}
