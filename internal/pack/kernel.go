package pack

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
)

// Where a pack has what it brings for the kernel: modules in a folder of the name of
// each kernel, and firmware.
const (
	ModulesPath  = "usr/lib/modules"
	FirmwarePath = "usr/lib/firmware"
)

// KernelDriver is a driver of the kernel that a pack brings.
type KernelDriver struct {
	Name    string `json:"name"`           // as oscine hardware names it, for example nvidia
	Version string `json:"version"`        // for example 550.163.01
	CUDA    string `json:"cuda,omitempty"` // the newest CUDA whose programs it runs
	// Kernels are those that it has modules for, as uname -r prints them: a module fits
	// no other one.
	Kernels []string `json:"kernels"`
	Modules []string `json:"modules"` // files in ModulesPath/KERNEL without .ko, in the order in which they are loaded
	// Devices are patterns of the identities of its devices, as modules.alias has them.
	Devices []string `json:"devices"`
}

var (
	kernelRE = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+~-]{0,62}$`)
	aliasRE  = regexp.MustCompile(`^[a-z]+:[A-Za-z0-9*?_.-]{1,250}$`)
)

func (k *KernelDriver) check() error {
	switch {
	case !driverRE.MatchString(k.Name) || !driverVersionRE.MatchString(k.Version):
		return fmt.Errorf("kernel: %q %q must be a driver's name and version", k.Name, k.Version)
	case k.CUDA != "" && !driverVersionRE.MatchString(k.CUDA):
		return fmt.Errorf("kernel.cuda: %q is no version", k.CUDA)
	case len(k.Kernels) == 0 || len(k.Modules) == 0 || len(k.Devices) == 0:
		return fmt.Errorf("kernel: kernels, modules and devices must name at least one each")
	case len(k.Kernels) > maxList || len(k.Modules) > maxList || len(k.Devices) > maxList:
		return fmt.Errorf("kernel: at most %d kernels, modules and devices are accepted", maxList)
	}
	for _, r := range k.Kernels {
		if !kernelRE.MatchString(r) {
			return fmt.Errorf("kernel.kernels: %q is no kernel, as uname -r prints it", r)
		}
	}
	for _, m := range k.Modules {
		if !driverRE.MatchString(m) {
			return fmt.Errorf("kernel.modules: %q is no name of a module", m)
		}
	}
	for _, d := range k.Devices {
		if !aliasRE.MatchString(d) {
			return fmt.Errorf("kernel.devices: %q is no pattern of a device's identity", d)
		}
	}
	return nil
}

// Fits reports whether the pack can be used with a kernel, as uname -r prints it.
func (m *Manifest) Fits(kernel string) bool {
	return m.Kernel == nil || slices.Contains(m.Kernel.Kernels, kernel)
}

// Named reports whether a file has the name of the pack, NAME.erofs or NAME-ARCH.erofs: by
// it a release says that it brings one for its kernel.
func (m *Manifest) Named(file string) bool {
	name, ok := strings.CutPrefix(file, m.Name)
	return ok && (name == ".erofs" || name == "-"+m.Arch+".erofs")
}

// Misfit says why a pack cannot be used with a kernel that it does not fit, and what
// to do.
func (m *Manifest) Misfit(kernel string) string {
	return fmt.Sprintf("the pack %s %s has modules of the driver %s for the kernel %s, and none for %s: build it from the source of the release with that kernel (oscine pack build %s)",
		m.Name, m.Version, m.Kernel.Name, strings.Join(m.Kernel.Kernels, ", "), kernel, m.Name)
}

// checkKernel refuses a pack whose modules the running kernel cannot load. On a
// node where the kernel is not Oscine's, kernel is "" and a pack brings none.
func (s *Store) checkKernel(m *Manifest, dir string) error {
	if m.Kernel == nil {
		return nil
	}
	if s.Kernel == "" {
		return fmt.Errorf("%w: the pack %s has modules for Oscine's own kernels, and this node's kernel is the host's: install the host's driver, and the pack nvidia if oscine-nvml does not lie beside oscined", ErrNotPack, m.Name)
	}
	if !m.Fits(s.Kernel) {
		return fmt.Errorf("%w: %s", ErrNotPack, m.Misfit(s.Kernel))
	}
	if s.TryModule == nil {
		return nil
	}
	first := path.Join(dir, ModulesPath, s.Kernel, m.Kernel.Modules[0]+".ko")
	if err := s.TryModule(first); err != nil {
		return fmt.Errorf("%w: the pack %s: %w", ErrNotPack, m.Name, err)
	}
	return nil
}

// FitKernel refuses a kernel that an installed pack has no modules for, if the machine
// uses the pack: it fits the running kernel, and one of its devices is there. It does not where a pack
// of that name comes with the release that brings the kernel: pins are the names of the
// files of those packs. Once they are fetched, staged is that release: its packs must
// then fit.
func (s *Store) FitKernel(kernel string, pins []string, staged string) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	packs, err := s.list()
	if err != nil {
		return err
	}
	for i := range packs {
		p := &packs[i]
		if p.Fits(kernel) || !p.Fits(s.Kernel) || s.HasDevice != nil && !s.HasDevice(p.Kernel) {
			continue
		}
		comes := slices.ContainsFunc(pins, p.Named)
		next, err := s.readStaged(p.Name)
		there := err == nil && next.Release == staged
		switch {
		case staged == "" && comes, staged != "" && there && next.Manifest.Fits(kernel):
			continue
		case staged != "" && there:
			return fmt.Errorf("%s", next.Manifest.Misfit(kernel))
		}
		return fmt.Errorf("%s, and put it into the release (oscine release create --pack), or remove the pack first (oscine pack remove %s)", p.Misfit(kernel), p.Name)
	}
	return nil
}
