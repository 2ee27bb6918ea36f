package pack

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// resolved is the step that refuses a pack whose libraries need one that it lacks
// and that does not come with the node's driver: nothing else tells before a worker
// starts, on another architecture least of all.
func resolved(w *wheel) step {
	return func(b *builder, _ context.Context, _ *lock) error { return b.resolve(w.driver) }
}

func (b *builder) resolve(driver []string) error {
	dir := filepath.Join(b.root, platformOf(b.Arch).libs)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !strings.Contains(e.Name(), ".so") {
			continue
		}
		needed, err := neededBy(filepath.Join(dir, e.Name()))
		if err != nil {
			return fmt.Errorf("%s: %w", e.Name(), err)
		}
		for _, name := range needed {
			if slices.Contains(driver, name) {
				continue
			}
			if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
				return fmt.Errorf("%s needs %s, which the pack lacks: add it to the recipe", e.Name(), name)
			}
		}
	}
	return nil
}
