package node

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"oscine.dev/oscine/internal/kmod"
	"oscine.dev/oscine/internal/node/reconcile"
	"oscine.dev/oscine/internal/pack"
)

// driverNode is a node on a machine with a device, whose kernel counts the modules that
// it takes, and a pack with a driver for it. Every call is a start of the machine with the
// same disk.
func driverNode(t *testing.T, state, boot string) (n *Node, p *pack.Info, inserted *int) {
	t.Helper()
	root := t.TempDir()
	for name, text := range map[string]string{"sys/bus/pci/devices/0/modalias": "pci:v1\n", "sys/module/firmware_class/parameters/path": ""} {
		file := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	inserted = new(int)
	log := slog.New(slog.DiscardHandler)
	n = &Node{log: log, packs: &pack.Store{Kernel: "7.2"}, events: reconcile.OpenEvents(t.Context(), filepath.Join(root, "events"), time.Now, log)}
	t.Cleanup(func() { n.events.Close() })
	n.kernel = &kmod.Kernel{Root: root, Sys: filepath.Join(root, "sys/module"), Insert: func(string) error {
		*inserted++
		return errors.Join(os.Mkdir(filepath.Join(root, "sys/module/gpu"), 0o755), os.WriteFile(filepath.Join(root, "sys/module/gpu/version"), []byte("1\n"), 0o644))
	}}
	var err error
	if n.loads, err = openDriverLoads(filepath.Join(state, driverLoadsFile), boot); err != nil {
		t.Fatal(err)
	}
	p = &pack.Info{Digest: "sha256:1"}
	p.Name = "gpu-driver"
	p.Kernel = &pack.KernelDriver{Name: "gpu", Version: "1", Kernels: []string{"7.2"}, Modules: []string{"gpu"}, Devices: []string{"pci:v1"}}
	return n, p, inserted
}

// A driver that crashes the kernel is left out before the machine has restarted so often
// that it takes its other version, until its pack is installed again.
func TestCrashingDriver(t *testing.T) {
	state := t.TempDir()
	for _, boot := range []string{"a", "b"} {
		n, p, inserted := driverNode(t, state, boot)
		n.loadKernelDriver(p, "/pack")
		if *inserted != 1 {
			t.Fatalf("start %s: loaded %d times", boot, *inserted)
		}
	}
	n, p, inserted := driverNode(t, state, "c")
	n.loadKernelDriver(p, "/pack")
	if got := n.kernelDriverState(p); *inserted != 0 || !strings.Contains(got, "restarted 2 times in a row while it loaded the driver gpu 1") || !strings.Contains(got, "install the pack again") {
		t.Errorf("after two crashes: loaded %d times, state %q", *inserted, got)
	}
	if err := n.loads.close(); err != nil {
		t.Fatal(err)
	}
	n, p, inserted = driverNode(t, state, "d")
	n.loadKernelDriver(p, "/pack")
	if *inserted != 0 {
		t.Error("loaded one start later")
	}
	n.forgetKernelDriver(p)
	n.loadKernelDriver(p, "/pack")
	if got := n.kernelDriverState(p); *inserted != 1 || got != "loaded" {
		t.Errorf("installed again: loaded %d times, state %q", *inserted, got)
	}
}

// Starts that went well, or ended in good order, don't count, and those of the daemon
// alone neither.
func TestDriverThatDoesNotCrash(t *testing.T) {
	for name, ends := range map[string]func(n *Node, p *pack.Info) error{
		"stopped": func(n *Node, _ *pack.Info) error { return n.loads.close() },
		"proven": func(n *Node, p *pack.Info) error {
			n.loads.now = func() time.Time { return time.Now().Add(driverProof) }
			n.loadKernelDriver(p, "/pack") // as the drivers are asked again and again
			return nil
		},
		"the daemon alone": nil,
	} {
		t.Run(name, func(t *testing.T) {
			state := t.TempDir()
			for i := range 5 {
				boot := "same"
				if ends != nil {
					boot = string(rune('a' + i))
				}
				n, p, inserted := driverNode(t, state, boot)
				n.loadKernelDriver(p, "/pack")
				if *inserted != 1 {
					t.Fatalf("start %d: loaded %d times, state %q", i, *inserted, n.kernelDriverState(p))
				}
				if ends == nil {
					continue
				}
				if err := ends(n, p); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// A damaged note is no reason not to start.
func TestDamagedDriverLoads(t *testing.T) {
	file := filepath.Join(t.TempDir(), driverLoadsFile)
	for _, text := range []string{"", "{", "null", `{"a": 1}`} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		l, _ := openDriverLoads(file, "a")
		if err := l.begin("sha256:1"); err != nil || l.crashes("sha256:1") {
			t.Errorf("%q: %v", text, err)
		}
	}
}
