package systemtest

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"oscine.dev/oscine/internal/artifact/artifacttest"
	"oscine.dev/oscine/internal/machine/machinetest"
	"oscine.dev/oscine/internal/serve/engine/enginetest"
)

// TestDamagedPack alters blocks of an installed pack on a booted machine's disk: the
// engine gets read errors and nothing wrong, the node says which pack is damaged, and
// the model runs once the pack is installed again, or by itself where the node knows
// from where to fetch it.
func TestDamagedPack(t *testing.T) {
	n, m := resumeNode(t, standard())
	file := makeEnginePack(n)
	model, request := filepath.Join(t.TempDir(), "digits.otm"), filepath.Join(t.TempDir(), "request.json")
	for name, text := range map[string]string{model: enginetest.Magic + "add\n", request: `{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[1,2,3,4]}]}`} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	answers := func() {
		t.Helper()
		n.awaitPhase("model", "digits", "Running", later)
		if got := n.run("infer", "digits", "-f", request); !strings.Contains(got, "[2,3,4,5]") {
			t.Errorf("the model answers:\n%s", got)
		}
	}

	n.run("pack", "install", file)
	alter(t, m, file)
	n.run("serve", model, "--memory", "64Mi", "--wait", "0s")
	n.awaitOutput("Damaged", "pack", "list")
	n.awaitOutput("the file of the pack made-up is damaged", "describe", "model", "digits")
	if got := n.run("pack", "inspect", "made-up"); !strings.Contains(got, "install it again, with oscine pack install FILE") {
		t.Errorf("inspect lacks the next step:\n%s", got)
	}
	n.run("pack", "install", file)
	answers()
	if got := n.run("pack", "inspect", "made-up"); !strings.Contains(got, "checked block by block (dm-verity)") || strings.Contains(got, "damaged") {
		t.Errorf("inspect of the good pack:\n%s", got)
	}
	n.run("delete", "model", "digits")
	n.run("pack", "remove", "made-up")

	_, port, err := net.SplitHostPort(artifacttest.StartFaulty(t).Host)
	if err != nil {
		t.Fatal(err)
	}
	n.run("pack", "push", file, "localhost:"+port+"/packs/made-up:1")
	n.run("pack", "pull", hostOfGuest+":"+port+"/packs/made-up:1", "--plain-http")
	alter(t, m, file)
	n.run("serve", model, "--memory", "64Mi", "--wait", "0s")
	n.awaitOutput("the pack made-up is good again", "events")
	answers()
	if got := n.run("events"); !strings.Contains(got, "PackDamaged") || !strings.Contains(got, "the node fetches it again") {
		t.Errorf("events:\n%s", got)
	}
	if got := n.run("pack", "list"); strings.Contains(got, "Damaged") {
		t.Errorf("pack list:\n%s", got)
	}
}

// alter turns a bit over in each block in the middle of a pack's file that lies on the
// disk of a machine.
func alter(t *testing.T, m *machinetest.Machine, file string) {
	t.Helper()
	const block = 4096
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	wanted := map[string]bool{}
	for at := len(raw) / 4 / block * block; at < len(raw)*3/4; at += block {
		wanted[string(raw[at:at+block])] = true
	}
	disk, err := os.OpenFile(filepath.Join(filepath.Dir(m.ConsoleLog()), "disk.qcow2"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer disk.Close()
	info, err := disk.Stat()
	if err != nil {
		t.Fatal(err)
	}
	altered := 0
	b := make([]byte, block)
	for at := int64(0); at+block <= info.Size(); at += block { // QEMU's clusters are multiples of blocks
		if _, err := disk.ReadAt(b, at); err != nil {
			t.Fatal(err)
		}
		if !wanted[string(b)] {
			continue
		}
		if _, err := disk.WriteAt([]byte{b[77] ^ 1}, at+77); err != nil {
			t.Fatal(err)
		}
		altered++
	}
	if altered < len(wanted) {
		t.Fatalf("found %d blocks of %s on the disk, want %d", altered, file, len(wanted))
	}
}
