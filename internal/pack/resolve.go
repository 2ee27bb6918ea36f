package pack

import (
	"context"
	"fmt"
	"io/fs"
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
	var files []string // libraries, and modules of Python with those that came with them
	err := filepath.WalkDir(b.root, func(file string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && strings.Contains(d.Name(), ".so") {
			files = append(files, file)
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, file := range files {
		needed, err := neededBy(file)
		if err != nil {
			return err
		}
		for _, name := range needed {
			if slices.Contains(driver, name) {
				continue
			}
			if !slices.ContainsFunc(files, func(f string) bool { return filepath.Base(f) == name }) {
				return fmt.Errorf("%s needs %s, which the pack lacks: add it to the recipe", filepath.Base(file), name)
			}
		}
	}
	return nil
}
