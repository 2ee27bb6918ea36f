package container

import (
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// BenchmarkStart runs a container from start to the record of its end, and
// compares it with a bare process in as many new namespaces.
func BenchmarkStart(b *testing.B) {
	r := withProbe(b)
	bare := func() {
		cmd := exec.Command(filepath.Join(programDir, "probe"))
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS | syscall.CLONE_NEWNET}
		if err := cmd.Run(); err != nil {
			b.Fatal(err)
		}
	}
	begin := time.Now()
	for range 20 {
		bare()
	}
	one := time.Since(begin) / 20
	for b.Loop() {
		if err := r.Start(b.Context(), Spec{ID: "bench", Image: probeName}); err != nil {
			b.Fatal(err)
		}
		if _, err := r.Wait(b.Context(), "bench"); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed())/float64(b.N)/float64(one), "×bare")
}
