package kmod

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"oscine.dev/oscine/internal/linux"
	"oscine.dev/oscine/internal/object"
)

// newKernel has the modules nbd, nf_log and, loaded, loop. It appends to calls what it
// loads and unloads.
func newKernel(t *testing.T, calls *[]string) *Kernel {
	k := &Kernel{Dir: t.TempDir(), Sys: t.TempDir()}
	k.Load = func(name string, parameters []string) error {
		*calls = append(*calls, strings.Join(append([]string{"+" + name}, parameters...), " "))
		return os.MkdirAll(filepath.Join(k.Sys, linux.ModuleName(name)), 0o755)
	}
	k.Unload = func(name string) error {
		*calls = append(*calls, "-"+name)
		return os.Remove(filepath.Join(k.Sys, name))
	}
	for file, text := range map[string]string{
		filepath.Join(k.Dir, "modules.dep"):              "kernel/drivers/block/nbd.ko:\nkernel/net/nf-log.ko.xz: kernel/net/x.ko\n",
		filepath.Join(k.Dir, "modules.builtin"):          "kernel/drivers/block/loop.ko\nkernel/fs/quiet.ko\n",
		filepath.Join(k.Sys, "loop/parameters/max_loop"): "8\n",
		filepath.Join(k.Sys, "loop/parameters/fast"):     "Y\n",
	} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	return k
}

func TestCheck(t *testing.T) {
	var calls []string
	k := newKernel(t, &calls)
	if err := k.Check([]object.KernelModule{{Name: "nbd"}, {Name: "nf-log"}, {Name: "nf_log"}, {Name: "loop"}}); err != nil {
		t.Error(err)
	}
	err := k.Check([]object.KernelModule{{Name: "nbd"}, {Name: "zfs"}, {Name: "ko"}})
	if err == nil || !strings.Contains(err.Error(), "zfs: the image has no such kernel module") || !strings.Contains(err.Error(), "ko:") {
		t.Errorf("got %v", err)
	}
}

func TestSet(t *testing.T) {
	var calls []string
	k, memory := newKernel(t, &calls), filepath.Join(t.TempDir(), "modules.json")
	set := func(want []string, says string, wanted ...object.KernelModule) {
		t.Helper()
		calls = nil
		if err := k.Set(memory, wanted); (err == nil) != (says == "") || err != nil && !strings.Contains(err.Error(), says) {
			t.Errorf("got %v, want %q", err, says)
		}
		if !slices.Equal(calls, want) {
			t.Errorf("got %q, want %q", calls, want)
		}
	}
	nbd := object.KernelModule{Name: "nbd", Parameters: map[string]string{"nbds_max": "4", "max_part": "2"}}
	log := object.KernelModule{Name: "nf-log"}
	set([]string{"+nbd max_part=2 nbds_max=4", "+nf-log"}, "", nbd, log)
	set(nil, "does not show it", nbd, log) // there already
	nbd.Parameters = nil
	set(nil, "", nbd, log)
	set([]string{"-nf_log"}, "", nbd)

	// One in use stays, and goes at the next chance.
	unload := k.Unload
	k.Unload = func(string) error { return unix.EWOULDBLOCK }
	set(nil, "is in use")
	k.Unload = unload
	set([]string{"-nbd"}, "")
	set(nil, "")

	// One that was there before is never unloaded; what it lets change is changed.
	set(nil, "", object.KernelModule{Name: "loop", Parameters: map[string]string{"max_loop": "16", "fast": "1"}})
	if raw, err := os.ReadFile(filepath.Join(k.Sys, "loop/parameters/max_loop")); err != nil || string(raw) != "16" {
		t.Errorf("max_loop is %q, %v", raw, err)
	}
	set(nil, "")

	// What the kernel has built in without parameters shows nowhere.
	set(nil, "", object.KernelModule{Name: "quiet"})

	k.Load = func(string, []string) error { return errors.New("bad magic") }
	set(nil, "nbd: load the kernel module: bad magic", nbd)
}
