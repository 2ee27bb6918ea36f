package machine_test

import (
	"bytes"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"oscine.dev/oscine/internal/cli"
	"oscine.dev/oscine/internal/client"
	"oscine.dev/oscine/internal/debian"
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
// try, and starts the older one that those keys signed. The machine's TPM then
// proves which of the two it was.
func TestSecureBoot(t *testing.T) {
	machinetest.Need(t)
	signed := signedImage(t)
	d := copyImage(t, signed)
	strange := openImage(t, machinetest.ImageOf(t, nextVersion))
	start, size := strange.partition(release.PartitionRootA)
	spare, _ := d.partition(release.PartitionRootB)
	d.copySparse(spare, strange.section(start, size))
	d.writeESP("EFI/Linux/oscine_"+nextVersion+"+1.efi", strange.readESP("EFI/Linux/oscine_"+nextVersion+"+3.efi"))

	config := filepath.Join(t.TempDir(), "config")
	m := machinetest.Start(t, machine.Options{Image: d.Name(), SecureBoot: true, TPM: true, Config: machineFileOf(t, config)})
	m.WaitConsole(`Custom Secure Boot keys successfully enrolled`, bootTimeout)
	m.WaitConsole(`Error loading .EFI.Linux.oscine_`+nextVersion+`\+0-1\.efi: Access denied`, bootTimeout)
	m.WaitConsole(`oscine-init: slot root-a on vda2 \(oscine_`+image.DefaultVersion, bootTimeout)
	m.WaitConsole(apiLine, bootTimeout)
	m.WaitTLS(machinetest.APIPort, time.Minute)
	m.WaitConsole(`oscine-init: slot root-a is good`, time.Minute)
	if strings.Contains(m.Console(), "slot root-b on") {
		t.Error("the version that a stranger signed was started")
	}

	contexts, err := client.Load(config)
	if err != nil {
		t.Fatal(err)
	}
	contexts.Contexts["node1"].Address = m.Addr(machinetest.APIPort)
	if err := contexts.Save(config); err != nil {
		t.Fatal(err)
	}
	attest := func(args ...string) (status int, out string) {
		var text bytes.Buffer
		status = cli.Run(append([]string{"--config", config, "attest", "node1"}, args...), strings.NewReader(""), &text, &text)
		return status, text.String()
	}
	proof := t.TempDir()
	status, out := attest("--image", signed, "--write", proof)
	for _, want := range []string{`(?m)^11 .* as expected$`, `(?m)^12 .* as expected$`, `the TPM's key [0-9a-f]{64} is new`, `PCR 7 [0-9a-f]{64} is new`} {
		if status != 0 || !regexp.MustCompile(want).MatchString(out) {
			t.Errorf("attest: exit status %d, want %q in\n%s", status, want, out)
		}
	}
	_, command, _ := strings.Cut(out, " && ")
	command, _, _ = strings.Cut(command, "\n")
	words := strings.Fields(command)
	tool, err := debian.FindTool(t.Context(), words[0])
	if err != nil {
		t.Fatal(err)
	}
	check := tool.Command(t.Context(), words[1:]...)
	check.Dir = proof
	if said, err := check.CombinedOutput(); err != nil {
		t.Errorf("%s: %v\n%s", command, err, said)
	}

	// The same node is not one that runs the other image, and no other TPM is its.
	other := machinetest.ImageOf(t, nextVersion)
	if status, out := attest("--image", other); status == 0 || !regexp.MustCompile(`PCR 11 is [0-9a-f]{64}, want [0-9a-f]{64}`).MatchString(out) {
		t.Errorf("attest of another image: exit status %d:\n%s", status, out)
	}
	if status, out := attest("--image", signed, "--key", strings.Repeat("ab", 32)); status == 0 || !strings.Contains(out, "want abab") {
		t.Errorf("attest with another key: exit status %d:\n%s", status, out)
	}
	renewsAttested(t, config, signed, other, m)
}

// renewsAttested has the node's certificate renewed because the node runs what is
// expected. It is kept over a restart of the machine, and renewed after its end.
func renewsAttested(t *testing.T, config, signed, other string, m *machinetest.Machine) {
	t.Helper()
	oscine := func(args ...string) (status int, out string) {
		var text bytes.Buffer
		status = cli.Run(append([]string{"--config", config}, args...), strings.NewReader(""), &text, &text)
		return status, text.String()
	}
	certificate := func() string {
		t.Helper()
		status, out := oscine("info")
		line := regexp.MustCompile(`(?m)^Certificate .*$`).FindString(out)
		if status != 0 || line == "" {
			t.Fatalf("info: exit status %d:\n%s", status, out)
		}
		return line
	}
	renew := func(image string, more ...string) (int, string) {
		return oscine(append([]string{"attest", "node1", "--image", image, "--renew"}, more...)...)
	}
	long := certificate()
	if status, out := renew(other); status == 0 || !strings.Contains(out, "its certificate was not renewed") || certificate() != long {
		t.Errorf("renewed for another image: exit status %d:\n%s", status, out)
	}
	if status, out := renew(signed, "--valid", "10m"); status != 0 || !strings.Contains(out, "Certificate renewed until ") {
		t.Fatalf("attest --renew: exit status %d:\n%s", status, out)
	}
	short := certificate()
	if short == long {
		t.Error("the certificate is the one before")
	}
	offset := len(m.Console())
	if status, out := oscine("reboot"); status != 0 {
		t.Fatal(out)
	}
	m.WaitConsoleAfter(offset, apiLine, 2*bootTimeout)
	m.WaitTLS(machinetest.APIPort, time.Minute)
	if got := certificate(); got != short {
		t.Errorf("after a restart of the machine: %s, want %s", got, short)
	}
	if status, out := renew(signed); status != 0 || certificate() == short {
		t.Errorf("renewed again: exit status %d:\n%s", status, out)
	}
}
