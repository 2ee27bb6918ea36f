package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"oscine.dev/oscine/internal/hardware"
	"oscine.dev/oscine/internal/printable"
)

// probe reads the machine, and its GPUs by the driver program beside the others.
func (c *check) probe() (*hardware.Machine, []hardware.Driver, error) {
	m, err := hardware.Discover("/")
	if err != nil {
		return nil, nil, err
	}
	drivers, err := hardware.AskDrivers(c.ctx, m, filepath.Join(c.bin, "oscine-nvml"))
	return m, drivers, err
}

// machine tells what GPUs there are, and how they are divided now.
func (c *check) machine() error {
	m, drivers, err := c.probe()
	if err != nil {
		return err
	}
	var unusable []string
	for i := range m.Accelerators {
		a := &m.Accelerators[i]
		if a.Kind != "gpu" {
			continue
		}
		if a.Driver != "nvidia" || !a.Usable() || len(drivers) == 0 {
			unusable = append(unusable, strings.TrimSpace(fmt.Sprintf("%s (%s %s, driver %q) %s %s", a.ID, a.Vendor, a.Model, a.Driver, strings.Join(a.Missing, "; "), a.Health.State)))
			continue
		}
		c.gpus = append(c.gpus, a.ID)
		c.say("%s: %s %s, %s, %s, driver %s, firmware %s, health %s", a.ID, a.Vendor, a.Model, printable.Bytes(int64(a.Memory)), a.Architecture, a.DriverVersion, a.Firmware, a.Health.State)
		c.say("%s: ecc %v, MIG on %v with %d partitions, MPS possible %v", a.ID, a.Attributes["ecc"], a.Attributes["mig"], len(a.Partitions), a.Attributes["mps"])
		if len(a.PartitionModes) > 0 {
			c.say("%s: can be divided into %s", a.ID, strings.Join(a.PartitionModes, " "))
		}
		if len(a.Partitions) > 0 {
			return fmt.Errorf("%s is cut into partitions: remove them first", a.ID)
		}
	}
	for id, load := range hardware.AskLoads(c.ctx, m, drivers) {
		c.say("%s: %s used, %.0f °C, %.0f W", id, printable.Bytes(int64(load.Used)), load.Celsius, load.Watts)
	}
	if len(c.gpus) > 0 {
		return nil
	}
	for _, g := range m.Gaps {
		if strings.HasSuffix(g.Path, "oscine-nvml") {
			unusable = append(unusable, g.Path+": "+g.Reason)
		}
	}
	if len(unusable) == 0 {
		return errors.New("this machine has no GPU: nothing of what needs one was tried")
	}
	return fmt.Errorf("no GPU of NVIDIA's can be used here, and nothing of what needs one was tried: %s", strings.Join(unusable, "; "))
}

// devices writes the CDI specifications, and looks whether what they name is there.
func (c *check) devices() error {
	m, _, err := c.probe()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "gpu-check-cdi-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	files, err := hardware.WriteCDI(dir, m)
	if err != nil {
		return err
	}
	var missing []error
	for _, spec := range hardware.CDI(m) {
		for _, d := range spec.Devices {
			for _, n := range d.ContainerEdits.DeviceNodes {
				_, err := os.Stat(n.Path)
				missing = append(missing, err)
			}
			for _, mount := range d.ContainerEdits.Mounts {
				_, err := os.Stat(mount.HostPath)
				missing = append(missing, err)
			}
			c.say("%s=%s: %d device nodes, %d files of the driver", spec.Kind, d.Name, len(d.ContainerEdits.DeviceNodes), len(d.ContainerEdits.Mounts))
		}
	}
	c.say("written: %s", strings.Join(files, ", "))
	return errors.Join(missing...)
}

// afterwards looks whether the GPUs are as they were before.
func (c *check) afterwards() error {
	m, drivers, err := c.probe()
	if err != nil {
		return err
	}
	for id, load := range hardware.AskLoads(c.ctx, m, drivers) {
		c.say("%s: %s used, %.0f °C, %.0f W", id, printable.Bytes(int64(load.Used)), load.Celsius, load.Watts)
	}
	for _, id := range c.gpus {
		a := m.Accelerator(id)
		if a == nil || !a.Usable() {
			return fmt.Errorf("%s cannot be used any more", id)
		}
		c.say("%s: health %s, MIG on %v", id, a.Health.State, a.Attributes["mig"])
	}
	return nil
}

// notTried tells what this program leaves out.
func (c *check) notTried() {
	fmt.Fprintln(c.out, "== not tried")
	for _, what := range []string{
		"MIG partitions and MPS: both change settings of the GPU, which may be in use by others",
		"memory errors, Xid events and a GPU that is lost: they cannot be brought about",
		"containers of images that bring CUDA themselves: no image is fetched",
	} {
		c.say("%s", what)
	}
	if len(c.gpus) == 1 {
		c.say("NVLink and several GPUs: there is one")
	}
}
