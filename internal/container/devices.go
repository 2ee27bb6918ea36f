package container

import (
	"fmt"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"tags.cncf.io/container-device-interface/pkg/cdi"
)

// injectDevices adds devices by their CDI names, such as nvidia.com/gpu=0, from
// the specifications in dirs.
func injectDevices(s *specs.Spec, names, dirs []string) error {
	if len(names) == 0 {
		return nil
	}
	cache, err := cdi.NewCache(cdi.WithSpecDirs(dirs...), cdi.WithAutoRefresh(false))
	if err != nil {
		return fmt.Errorf("devices %s: %w", strings.Join(names, ", "), err)
	}
	if unknown, err := cache.InjectDevices(s, names...); err != nil {
		have := cache.ListDevices()
		if len(have) == 0 {
			have = []string{"none"}
		}
		if len(unknown) > 0 {
			return fmt.Errorf("no device %s on this node; it has %s", strings.Join(unknown, ", "), strings.Join(have, ", "))
		}
		return fmt.Errorf("devices %s: %w", strings.Join(names, ", "), err)
	}
	return nil
}
