package systemtest

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"oscine.dev/oscine/internal/debian"
	"oscine.dev/oscine/internal/image"
	"oscine.dev/oscine/internal/image/layout"
	"oscine.dev/oscine/internal/machine"
	"oscine.dev/oscine/internal/machine/machinetest"
	"oscine.dev/oscine/internal/release"
	"oscine.dev/oscine/internal/secureboot"
)

// Words that a node stores: the name of an object, and a line of its log.
const (
	storedName = "word-on-the-disk"
	storedLine = "the data partition is encrypted"
)

// TestEncryption boots a new machine whose Machine wants its data encrypted, and
// restarts it with another TPM and a larger disk: it is locked, says so, and takes the
// recovery key. A reset at the end begins again.
func TestEncryption(t *testing.T) {
	machinetest.Need(t)
	dir := t.TempDir()
	keys, signed := filepath.Join(dir, "keys"), filepath.Join(dir, "signed.img")
	if _, err := secureboot.Generate(keys, "Test", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := image.Build(t.Context(), image.Options{Secure: keys, Out: signed}); err != nil {
		t.Fatal(err)
	}
	n := newTestNode(t, dir, loopback(machinetest.APIPort))
	config, err := os.ReadFile(n.machineFile())
	if err != nil {
		t.Fatal(err)
	}
	config = append(config, "    storage:\n        encryption: tpm\n"...)
	m := machinetest.Start(t, machine.Options{Image: signed, SecureBoot: true, TPM: true, Config: config})
	m.WaitConsole(storedLine, 2*later)
	n = openNode(t, dir, m)
	m.WaitConsole(`oscine-init: slot root-a is good`, later)
	if got := n.run("info"); !strings.Contains(got, "without a recovery key: make one") {
		t.Errorf("info:\n%s", got)
	}
	n.run("secret", "set", storedName, "word=secret")
	lost := n.run("recovery-key", "create")
	recovery := n.run("recovery-key", "create")
	if strings.Contains(m.Console()+n.run("events")+n.run("dmesg"), strings.TrimSpace(recovery)) {
		t.Error("the recovery key is in a log")
	}
	if got := n.run("info"); !strings.Contains(got, "tpm, with a recovery key") {
		t.Errorf("info:\n%s", got)
	}
	plain := filepath.Join(dir, "plain.yaml")
	shown := regexp.MustCompile(`(?m)^ +storage:\n +encryption: tpm\n`).ReplaceAllString(n.run("config", "show"), "")
	write(t, plain, shown)
	n.refuse([]string{"apply", "-f", plain}, "spec.storage.encryption", "oscine reset")
	n.run("shutdown")
	m.WaitOff(later)

	folder := filepath.Join(m.Options().StateDir, m.Options().Name)
	disk := filepath.Join(folder, "disk.qcow2")
	checkCiphertext(t, disk, recovery, lost)
	tool(t, "qemu-img", "resize", disk, "1536M")
	if err := os.RemoveAll(filepath.Join(folder, "tpm")); err != nil {
		t.Fatal(err)
	}
	offset := len(m.Console())
	m.Restart()
	m.WaitConsoleAfter(offset, `oscine-init: the data partition is locked, and nothing of it is changed: the key was sealed by another TPM`, 2*later)
	fingerprint := m.WaitConsoleAfter(offset, `The node's fingerprint is now ([0-9a-f]{64})`, later)[1]
	unlock := func(key string) (string, string, int) {
		return n.tryWith(n.config, key, "unlock", "--address", m.Addr(machinetest.APIPort), "--fingerprint", fingerprint, "--key-file", "-")
	}
	m.WaitTLS(machinetest.APIPort, later)
	if _, said, code := n.try("info"); code == 0 {
		t.Errorf("a locked node answers: %s", said)
	}
	if _, said, code := unlock(lost); code == 0 || !strings.Contains(said, "locked: the key was sealed by another TPM") || !strings.Contains(said, "not this data partition's recovery key") {
		t.Errorf("the recovery key before: exit status %d, %s", code, said)
	}
	if out, said, code := unlock(recovery); code != 0 {
		t.Fatalf("exit status %d, %s%s", code, out, said)
	}
	m.WaitConsoleAfter(offset, `oscine-init: data partition opened by the TPM`, 2*later)
	m.WaitConsoleAfter(offset, `oscine-init: data grown from`, later)
	n.awaitAPI()
	if got := n.run("get", "secret"); !strings.Contains(got, storedName) {
		t.Errorf("what was stored is gone:\n%s", got)
	}

	offset = len(m.Console())
	n.run("reset", "--yes")
	m.WaitConsoleAfter(offset, `oscine-init: reset: the data partition is empty`, 2*later)
	m.WaitConsoleAfter(offset, storedLine, 2*later)
	n.awaitAPI()
	if got := n.run("get", "secret"); strings.Contains(got, storedName) {
		t.Errorf("what was stored survived a reset:\n%s", got)
	}
}

// TestEncryptedUpgrade is refused a release whose kernel image another key has signed, goes to
// one that finds no network and back, and to one that works. The TPM gives each of them the key
// of the data.
func TestEncryptedUpgrade(t *testing.T) {
	if os.Getenv(longVariable) != "1" {
		t.Skipf("waits for releases to fail: set %s=1, or use make test-upgrade", longVariable)
	}
	machinetest.Need(t)
	dir := t.TempDir()
	keys := filepath.Join(dir, "secureboot")
	if _, err := secureboot.Generate(keys, "Test", nil); err != nil {
		t.Fatal(err)
	}
	signed := func(version, words string) string {
		file := filepath.Join(dir, "signed-"+version+".img")
		if _, err := image.Build(t.Context(), image.Options{Secure: keys, Version: version, Cmdline: words, Out: file}); err != nil {
			t.Fatal(err)
		}
		return file
	}
	n, p := newTestNode(t, dir, loopback(machinetest.APIPort)), newPublisher(t, dir)
	config, err := os.ReadFile(n.machineFile())
	if err != nil {
		t.Fatal(err)
	}
	config = fmt.Appendf(config, "    storage:\n        encryption: tpm\n    update:\n        root: '%s'\n", strings.ReplaceAll(p.root(), "\n", " "))
	m := machinetest.Start(t, machine.Options{Image: signed(image.DefaultVersion, ""), SecureBoot: true, TPM: true, Config: config})
	m.WaitConsole(`oscine-init: slot root-a is good`, 2*later)
	n = openNode(t, dir, m)
	n.run("secret", "set", storedName, "word=secret")
	n.run("recovery-key", "create")
	opened := func(what string) {
		t.Helper()
		if got := n.run("get", "secret"); !strings.Contains(got, storedName) {
			t.Errorf("%s: what was stored is gone:\n%s", what, got)
		}
		if got := n.run("info"); !strings.Contains(got, "tpm, with a recovery key") {
			t.Errorf("%s: info:\n%s", what, got)
		}
	}
	_, port, err := net.SplitHostPort(serveOn(t, loopback(0), http.FileServer(http.Dir(p.dir))))
	if err != nil {
		t.Fatal(err)
	}
	source := "http://" + net.JoinHostPort(hostOfGuest, port)

	works := signed(worksVersion, "")
	p.publishImage(works)
	p.publishAltered(works, panicsVersion, "quiet")
	n.refuse([]string{"upgrade", source, "--to", panicsVersion, "--wait=20m"}, "which is not the key of the running version")
	p.publishImage(signed(isolatedVersion, "module_blacklist=virtio_net"))
	n.refuse([]string{"upgrade", source, "--to", isolatedVersion, "--gate-deadline", "30s", "--wait=20m"}, "network: no interface has an address")
	opened("after the release that found no network")
	n.run("upgrade", source, "--to", worksVersion, "--wait=20m")
	n.awaitAPI()
	if got := n.run("info"); !strings.Contains(got, worksVersion+", good, running") {
		t.Errorf("info:\n%s", got)
	}
	opened("after the upgrade")
}

// checkCiphertext: the disk of a machine shows nothing that the node stored, and
// cryptsetup opens its data partition with the recovery key, and with no other.
func checkCiphertext(t *testing.T, disk, recovery, lost string) {
	t.Helper()
	raw := filepath.Join(t.TempDir(), "disk.raw")
	tool(t, "qemu-img", "convert", "-O", "raw", disk, raw)
	f, err := os.Open(raw)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	parts, err := layout.ReadTable(f, info.Size())
	if err != nil {
		t.Fatal(err)
	}
	data := parts[release.PartitionData]
	for _, word := range []string{storedName, storedLine} {
		if found, err := contains(io.NewSectionReader(f, data.Start, data.Size), word); found || err != nil {
			t.Errorf("the data partition shows %q: %t, %v", word, found, err)
		}
	}
	header := filepath.Join(t.TempDir(), "header")
	head := make([]byte, 32<<20)
	if _, err := f.ReadAt(head, data.Start); err != nil {
		t.Fatal(err)
	}
	write(t, header, string(head))
	for key, opens := range map[string]bool{recovery: true, lost: false} {
		cryptsetup, err := debian.FindTool(t.Context(), "cryptsetup")
		if err != nil {
			t.Fatal(err)
		}
		cmd := cryptsetup.Command(t.Context(), "open", "--test-passphrase", "--key-file=-", header)
		cmd.Stdin = strings.NewReader(strings.TrimSpace(key))
		if out, err := cmd.CombinedOutput(); (err == nil) != opens {
			t.Errorf("cryptsetup opens %t, %v: %s", opens, err, out)
		}
	}
}

// contains looks for a word in all of r.
func contains(r io.Reader, word string) (bool, error) {
	block, kept := make([]byte, 1<<20), 0
	for {
		n, err := io.ReadFull(r, block[kept:])
		if bytes.Contains(block[:kept+n], []byte(word)) {
			return true, nil
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return false, nil
		} else if err != nil {
			return false, err
		}
		kept = copy(block, block[len(block)-len(word):])
	}
}

// tool runs a program of the tools that tests bring.
func tool(t *testing.T, name string, args ...string) {
	t.Helper()
	found, err := debian.FindTool(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	if out, err := found.Command(t.Context(), args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
