package worker

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Entry returns the file that an engine opens of the model at path: the one file
// at the top of a folder whose name ends in one of the suffixes, or path itself
// where that is a file.
func Entry(path string, suffixes ...string) (string, error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return "", err
	case info.Mode().IsRegular():
		return path, nil
	case !info.IsDir():
		return "", errors.New("the model is neither a file nor a folder")
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return "", err
	}
	var found []string
	for _, e := range entries {
		name := strings.ToLower(e.Name())
		if e.Type().IsRegular() && slices.ContainsFunc(suffixes, func(s string) bool { return strings.HasSuffix(name, s) }) {
			found = append(found, e.Name())
		}
	}
	switch len(found) {
	case 0:
		return "", fmt.Errorf("the model's folder has no file at its top that ends in %s", strings.Join(suffixes, " or "))
	case 1:
		return filepath.Join(path, found[0]), nil
	}
	return "", fmt.Errorf("the model's folder has %d models: %s: serve one of them: oscine serve FOLDER/%s takes along what it needs", len(found), strings.Join(found, ", "), found[0])
}
