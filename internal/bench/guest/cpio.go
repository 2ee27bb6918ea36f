package guest

import (
	"bytes"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"

	"oscine.dev/oscine/internal/image/cpio"
)

// archive makes an initramfs that holds files under their names without a
// leading slash, their folders, and /dev/console for the first messages of
// init.
func archive(files map[string]string) ([]byte, error) {
	var out bytes.Buffer
	w := cpio.NewWriter(&out, 0)
	made := map[string]bool{".": true}
	var folder func(name string)
	folder = func(name string) {
		if made[name] {
			return
		}
		made[name] = true
		folder(path.Dir(name))
		w.Add(name, fs.ModeDir|0o755, nil)
	}
	folder("dev")
	w.AddCharDevice("dev/console", 0o600, 5, 1)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		data, err := os.ReadFile(files[name])
		if err != nil {
			return nil, err
		}
		folder(path.Dir(name))
		w.Add(name, 0o755, data)
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}
