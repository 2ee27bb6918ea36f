package pack

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// resolved is the step that refuses a pack whose libraries need one that it lacks:
// nothing else tells before a worker starts, on another architecture least of all.
func (b *builder) resolved(context.Context, *lock) error {
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
			if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
				return fmt.Errorf("%s needs %s, which the pack lacks: add it to the recipe", e.Name(), name)
			}
		}
	}
	return nil
}
