package attesttest

import (
	"bytes"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
	"github.com/google/go-tpm/tpm2/transport/linuxudstpm"

	"oscine.dev/oscine/internal/debian"
)

// Emulated starts swtpm with a new TPM, for the time of the test, which is skipped
// where there is none.
func Emulated(t testing.TB) transport.TPM {
	t.Helper()
	tpm, stop := EmulatedIn(t, t.TempDir())
	t.Cleanup(stop)
	return tpm
}

// EmulatedIn starts swtpm with the TPM whose state is in a folder, or a new one, until
// stop is called. The test is skipped where there is none.
func EmulatedIn(t testing.TB, dir string) (tpm transport.TPM, stop func()) {
	t.Helper()
	tool, err := debian.FindTool(t.Context(), "swtpm")
	if err != nil {
		t.Skipf("needs swtpm: %v", err)
	}
	socket := filepath.Join(t.TempDir(), "tpm.sock")
	cmd := tool.Command(t.Context(), "socket", "--tpm2", "--tpmstate", "dir="+dir, "--server", "type=unixio,path="+socket, "--flags", "not-need-init,startup-clear")
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop = func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	for range 500 {
		if tpm, err := linuxudstpm.Open(socket); err == nil {
			if _, err := (tpm2.PCRRead{PCRSelectionIn: tpm2.TPMLPCRSelection{}}).Execute(tpm); err == nil {
				return tpm, stop
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	stop()
	t.Fatalf("swtpm does not listen: %s", &said)
	return nil, nil
}
