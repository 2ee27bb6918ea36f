package guest

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"
)

// archive makes an initramfs ("newc" cpio) that holds files under their names
// without a leading slash, their folders, and /dev/console for the first
// messages of init.
func archive(files map[string]string) ([]byte, error) {
	var out bytes.Buffer
	inode := 0
	add := func(name string, mode, rdevMajor, rdevMinor int, data []byte) {
		inode++
		fmt.Fprintf(&out, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%s\x00",
			inode, mode, 0, 0, 1, 0, len(data), 0, 0, rdevMajor, rdevMinor, len(name)+1, 0, name)
		out.Write(make([]byte, -out.Len()&3))
		out.Write(data)
		out.Write(make([]byte, -out.Len()&3))
	}
	const directory, program, device = 0o040755, 0o100755, 0o020600
	made := map[string]bool{}
	var folder func(name string)
	folder = func(name string) {
		if name == "" || made[name] {
			return
		}
		made[name] = true
		if i := strings.LastIndexByte(name, '/'); i > 0 {
			folder(name[:i])
		}
		add(name, directory, 0, 0, nil)
	}
	folder("dev")
	add("dev/console", device, 5, 1, nil)
	var names []string
	for name := range files {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		data, err := os.ReadFile(files[name])
		if err != nil {
			return nil, err
		}
		if i := strings.LastIndexByte(name, '/'); i > 0 {
			folder(name[:i])
		}
		add(name, program, 0, 0, data)
	}
	add("TRAILER!!!", 0, 0, 0, nil)
	return out.Bytes(), nil
}
