package machine_test

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"oscine.dev/oscine/internal/image"
	"oscine.dev/oscine/internal/machine"
	"oscine.dev/oscine/internal/machine/machinetest"
	"oscine.dev/oscine/internal/release"
	"oscine.dev/oscine/internal/secureboot"
)

// signedImage builds the tree's image with new keys of Secure Boot.
func signedImage(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	keys, out := filepath.Join(dir, "keys"), filepath.Join(dir, "signed.img")
	if _, err := secureboot.Generate(keys, "Test", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := image.Build(t.Context(), image.Options{Secure: keys, Out: out}); err != nil {
		t.Fatal(err)
	}
	return out
}

// TestSecureBoot starts a new machine whose firmware is in setup mode: it enrols
// the image's keys, then refuses the newer version of a stranger, which has one
// try, and starts the older one that those keys signed.
func TestSecureBoot(t *testing.T) {
	machinetest.Need(t)
	d := copyImage(t, signedImage(t))
	strange := openImage(t, machinetest.ImageOf(t, nextVersion))
	start, size := strange.partition(release.PartitionRootA)
	spare, _ := d.partition(release.PartitionRootB)
	d.copySparse(spare, strange.section(start, size))
	d.writeESP("EFI/Linux/oscine_"+nextVersion+"+1.efi", strange.readESP("EFI/Linux/oscine_"+nextVersion+"+3.efi"))

	m := machinetest.Start(t, machine.Options{Image: d.Name(), SecureBoot: true, Config: machineFile(t)})
	m.WaitConsole(`Custom Secure Boot keys successfully enrolled`, bootTimeout)
	m.WaitConsole(`Error loading .EFI.Linux.oscine_`+nextVersion+`\+0-1\.efi: Access denied`, bootTimeout)
	m.WaitConsole(`oscine-init: slot root-a on vda2 \(oscine_`+image.DefaultVersion, bootTimeout)
	m.WaitConsole(apiLine, bootTimeout)
	m.WaitTLS(machinetest.APIPort, time.Minute)
	m.WaitConsole(`oscine-init: slot root-a is good`, time.Minute)
	if strings.Contains(m.Console(), "slot root-b on") {
		t.Error("the version that a stranger signed was started")
	}
}
