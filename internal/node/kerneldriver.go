package node

import (
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
	d := kernelDriver(p, n.packs.Kernel, root)
	err := n.kernel.LoadDriver(d)
	if !n.failures.set(p.Digest, err) {
		return
	}
	if err != nil {
		n.log.Warn("a driver of the kernel does not load", "pack", p.Name, "error", err)
		n.events.Add(Event{Reason: "DriverNotLoaded", Message: err.Error(), Warning: true})
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
	if err := n.kernel.UnloadDriver(kernelDriver(p, n.packs.Kernel, "")); err != nil {
		n.log.Warn("unload the driver of a removed pack", "pack", p.Name, "error", err)
		n.events.Add(Event{Reason: "DriverStays", Message: err.Error(), Warning: true})
	}
}
