package node

import (
	"fmt"
	"path/filepath"
	"sync"

	"oscine.dev/oscine/internal/kmod"
	"oscine.dev/oscine/internal/pack"
)

// driverFailures are why drivers of the kernel did not load, by the digests of their
// packs. It is safe for concurrent use.
type driverFailures struct {
	mu  sync.Mutex
	why map[string]string
}

// set keeps why a driver does not load, nil that it does, and reports whether that is
// new.
func (f *driverFailures) set(digest string, err error) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	text := ""
	if err != nil {
		text = err.Error()
	}
	if f.why[digest] == text {
		return false
	}
	if f.why == nil {
		f.why = map[string]string{}
	}
	f.why[digest] = text
	return true
}

func (f *driverFailures) get(digest string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.why[digest]
}

// kernelDriver is the driver that a pack brings, whose root is mounted.
func kernelDriver(p *pack.Info, kernel, root string) *kmod.Driver {
	k := p.Kernel
	return &kmod.Driver{
		Name: k.Name, Version: k.Version, Modules: k.Modules, Devices: k.Devices,
		Dir: filepath.Join(root, pack.ModulesPath, kernel), Firmware: filepath.Join(root, pack.FirmwarePath),
	}
}

// loadKernelDriver loads the driver of a pack where a device needs it.
func (n *Node) loadKernelDriver(p *pack.Info, root string) {
	if !p.Fits(n.packs.Kernel) {
		return // kernelDriverState says so
	}
	err := n.tryKernelDriver(p.Digest, kernelDriver(p, n.packs.Kernel, root))
	if !n.failures.set(p.Digest, err) {
		return
	}
	if err != nil {
		n.log.Warn("a driver of the kernel does not load", "pack", p.Name, "error", err)
		n.events.Add(Event{Reason: "DriverNotLoaded", Message: err.Error(), Warning: true})
	}
}

// tryKernelDriver loads a driver unless the machine restarted each time that it was.
func (n *Node) tryKernelDriver(digest string, d *kmod.Driver) error {
	if !n.kernel.Present(d) {
		return n.kernel.LoadDriver(d) // which loads nothing, or says that another version runs
	}
	if n.loads.crashes(digest) {
		return fmt.Errorf("the machine restarted %d times in a row while it loaded the driver %s %s, which is not loaded any more: install the pack again to retry (oscine pack install FILE)", driverCrashes, d.Name, d.Version)
	}
	if err := n.loads.begin(digest); err != nil {
		n.log.Warn("a driver is loaded without a note of it", "driver", d.Name, "error", err)
	}
	err := n.kernel.LoadDriver(d)
	if err := n.loads.end(digest); err != nil {
		n.log.Warn("a driver that was loaded stays noted", "driver", d.Name, "error", err)
	}
	return err
}

// forgetKernelDriver has the driver of a pack loaded again, whatever happened before.
func (n *Node) forgetKernelDriver(p *pack.Info) {
	if p.Kernel == nil || n.loads == nil {
		return
	}
	if err := n.loads.forget(p.Digest); err != nil {
		n.log.Warn("a driver stays noted", "pack", p.Name, "error", err)
	}
}

// kernelDriverState says whether the driver of a pack is loaded; "" where it has none.
func (n *Node) kernelDriverState(p *pack.Info) string {
	switch {
	case p.Kernel == nil:
		return ""
	case !p.Fits(n.packs.Kernel):
		return p.Misfit(n.packs.Kernel)
	}
	if why := n.failures.get(p.Digest); why != "" {
		return why
	}
	return n.kernel.State(kernelDriver(p, n.packs.Kernel, ""))
}

// unloadKernelDriver unloads the driver of a pack that was removed.
func (n *Node) unloadKernelDriver(p *pack.Info) {
	if p.Kernel == nil || n.config.Mode != OnImage {
		return
	}
	n.forgetKernelDriver(p)
	if err := n.kernel.UnloadDriver(kernelDriver(p, n.packs.Kernel, "")); err != nil {
		n.log.Warn("unload the driver of a removed pack", "pack", p.Name, "error", err)
		n.events.Add(Event{Reason: "DriverStays", Message: err.Error(), Warning: true})
	}
}
