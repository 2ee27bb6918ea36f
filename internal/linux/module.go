package linux

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// moduleInitCompressedFile is MODULE_INIT_COMPRESSED_FILE of
// include/uapi/linux/module.h: the kernel decompresses the file itself.
const moduleInitCompressedFile = 4

// LoadModule loads the kernel module in file, which may be compressed (.ko.xz,
// .ko.zst, .ko.gz), with the given parameters ("" for none). A module that is
// already loaded is no error. See finit_module(2).
func LoadModule(file, params string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	flags := 0
	if !strings.HasSuffix(file, ".ko") {
		flags = moduleInitCompressedFile
	}
	err = unix.FinitModule(int(f.Fd()), params, flags)
	if err != nil && err != unix.EEXIST {
		return fmt.Errorf("load module %s: %w", file, err)
	}
	return nil
}

// ModulesDir is the folder of the running kernel's modules, with the lists that
// depmod(8) makes.
func ModulesDir() string {
	var uts unix.Utsname
	if unix.Uname(&uts) != nil {
		return "/usr/lib/modules"
	}
	return "/usr/lib/modules/" + unix.ByteSliceToString(uts.Release[:])
}

// ModuleName is the name under which the kernel knows a module, of its name or its
// file.
func ModuleName(file string) string {
	name, _, _ := strings.Cut(filepath.Base(file), ".ko")
	return strings.ReplaceAll(name, "-", "_")
}
