package boot

import (
	"os"
	"path/filepath"
	"testing"

	"oscine.dev/oscine/internal/release"
)

// espWith is a mounted ESP with that Machine file, and where it is to go.
func espWith(t *testing.T, content []byte) (esp, source, target string) {
	t.Helper()
	esp = t.TempDir()
	source = filepath.Join(esp, release.ESPMachine)
	if err := os.MkdirAll(filepath.Dir(source), 0o755); err != nil {
		t.Fatal(err)
	}
	if content != nil {
		write(t, source, content)
	}
	return esp, source, filepath.Join(t.TempDir(), "lib/oscine/machine.yaml")
}

func write(t *testing.T, name string, content []byte) {
	t.Helper()
	if err := os.WriteFile(name, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestAdoptMachineFile(t *testing.T) {
	const text = "kind: Machine\n"
	esp, source, target := espWith(t, nil)
	if adopted, err := adoptMachineFile(esp, target); adopted || err != nil {
		t.Errorf("no file: got %t, %v", adopted, err)
	}
	write(t, source, make([]byte, maxMachineFile+1))
	if _, err := adoptMachineFile(esp, target); err == nil || exists(target) || !exists(source) {
		t.Errorf("too large: got %v", err)
	}
	write(t, source, []byte(text))
	other := source + ".linked" // the blocks that the file has on the disk
	if err := os.Link(source, other); err != nil {
		t.Fatal(err)
	}
	if adopted, err := adoptMachineFile(esp, target); !adopted || err != nil {
		t.Errorf("got %t, %v", adopted, err)
	}
	if raw, err := os.ReadFile(target); string(raw) != text || err != nil {
		t.Errorf("got %q, %v", raw, err)
	}
	if left, err := os.ReadFile(other); exists(source) || string(left) != string(make([]byte, len(text))) || err != nil {
		t.Errorf("the ESP keeps the file (%t) or its bytes: %q, %v", exists(source), left, err)
	}
}

// TestAdoptAfterPowerCut goes on where a power failure stopped the adoption: in
// the middle of overwriting the file on the ESP, or after it was removed.
func TestAdoptAfterPowerCut(t *testing.T) {
	for name, onESP := range map[string][]byte{"half overwritten": []byte("\x00\x00\x00d: Machine\n"), "removed": nil} {
		esp, source, target := espWith(t, onESP)
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, target+adopting, []byte("kind: Machine\n"))
		if adopted, err := adoptMachineFile(esp, target); !adopted || err != nil {
			t.Errorf("%s: got %t, %v", name, adopted, err)
		}
		raw, err := os.ReadFile(target)
		if string(raw) != "kind: Machine\n" || err != nil || exists(source) || exists(target+adopting) {
			t.Errorf("%s: got %q, %v; on the ESP %t, copy %t", name, raw, err, exists(source), exists(target+adopting))
		}
	}
}
