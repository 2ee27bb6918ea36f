package image

import (
	"errors"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"oscine.dev/oscine/internal/debian"
	"oscine.dev/oscine/internal/release"
	"oscine.dev/oscine/internal/secureboot"
	"oscine.dev/oscine/internal/uki"
	"oscine.dev/oscine/internal/uki/ukitest"
)

// An image with keys of Secure Boot brings them, and its kernel locks itself down.
func TestSecure(t *testing.T) {
	dir := t.TempDir()
	if _, err := secureboot.Generate(dir, "Test", nil); err != nil {
		t.Fatal(err)
	}
	key, enrol, err := secureboot.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	loader := filepath.Join(dir, "usr/lib/systemd/boot/efi/systemd-bootx64.efi")
	if err := errors.Join(os.MkdirAll(filepath.Dir(loader), 0o755), os.WriteFile(loader, ukitest.Stub(), 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, secure := range []bool{true, false} {
		b := &builder{Options: Options{Arch: "amd64"}, boot: &debian.Tree{Dir: dir}, key: key}
		if secure {
			b.enrol = enrol
		}
		files, err := b.espFiles("x.efi", nil)
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]string{}
		for _, f := range files {
			got[f.Path] = string(f.Data)
		}
		if _, err := uki.Signer([]byte(got["/EFI/BOOT/BOOTX64.EFI"])); err != nil {
			t.Errorf("the boot loader: %v", err)
		}
		if strings.Contains(got["/loader/loader.conf"], "secure-boot-enroll force") != secure {
			t.Errorf("with keys %t: the boot loader's settings are %q", secure, got["/loader/loader.conf"])
		}
		for _, name := range secureboot.Variables() {
			if file := path.Join(secureboot.EnrolFolder, name+".auth"); (got[file] != "") != secure {
				t.Errorf("with keys %t: %s has %d bytes", secure, file, len(got[file]))
			}
		}
		if strings.Contains(commandLine("amd64", FlavourCloud, release.Verity{}, secure, ""), "lockdown=integrity") != secure {
			t.Errorf("with keys %t: the kernel's lockdown is wrong", secure)
		}
	}
	if err := (&Options{Key: "a", Secure: "b"}).fill(); err == nil || !strings.Contains(err.Error(), "--secureboot") {
		t.Errorf("two keys: got %v", err)
	}
}
