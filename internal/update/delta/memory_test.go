package delta

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"

	"oscine.dev/oscine/internal/update"
)

// memoryLimit is what a program that applies a delta takes at most in total.
const memoryLimit = 64 << 20

const applyIn = "OSCINE_TEST_APPLY_IN" // the folder of what the child is to apply

// TestMemory applies a delta of large parts with large dictionaries in a process
// of its own and reads the most memory that it ever had.
func TestMemory(t *testing.T) {
	if dir := os.Getenv(applyIn); dir != "" {
		applyAlone(t, dir)
		return
	}
	// A megabyte is gone from the front and there are four more at the end, so
	// that parts need their dictionaries and their own data.
	old := noise(1, 48<<20)
	daemon := append(append([]byte{}, old[1<<20:]...), noise(2, 4<<20)...)
	oldContent, content := rootOf(t, file{"daemon", old}), rootOf(t, file{"daemon", daemon})
	dir := t.TempDir()
	for name, base := range map[string]*Content{"full": nil, "delta": oldContent} {
		out, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		transfer, err := Make(t.Context(), content, base, out)
		if err != nil {
			t.Fatal(err)
		}
		if err := out.Close(); err != nil {
			t.Fatal(err)
		}
		text, err := json.Marshal([]any{describe(t, content), transfer, oldContent.Size})
		if err != nil {
			t.Fatal(err)
		}
		oldBytes, err := io.ReadAll(io.NewSectionReader(oldContent.Data, 0, oldContent.Size))
		if err != nil {
			t.Fatal(err)
		}
		for file, data := range map[string][]byte{"job": text, "old": oldBytes} {
			if err := os.WriteFile(filepath.Join(dir, file), data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestMemory$", "-test.v")
		child.Env = append(os.Environ(), applyIn+"="+dir, "GOGC=100", "GOMEMLIMIT=off")
		said, err := child.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, said)
		}
		found := regexp.MustCompile(`peak (\d+) KiB`).FindSubmatch(said)
		if found == nil {
			t.Fatalf("the child told no memory: %s", said)
		}
		peak, err := strconv.ParseInt(string(found[1]), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %d KiB", name, peak)
		if peak<<10 > memoryLimit {
			t.Errorf("%s took %d KiB, more than %d", name, peak, memoryLimit>>10)
		}
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
}

func applyAlone(t *testing.T, dir string) {
	text, err := os.ReadFile(filepath.Join(dir, "job"))
	if err != nil {
		t.Fatal(err)
	}
	j, size := Job{Content: new(update.Content)}, int64(0)
	if err := json.Unmarshal(text, &[]any{j.Content, &j.Transfer, &size}); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, "full")
	if _, err := os.Stat(name); err != nil {
		old, err := os.Open(filepath.Join(dir, "old"))
		if err != nil {
			t.Fatal(err)
		}
		defer old.Close()
		name, j.Base = filepath.Join(dir, "delta"), &update.Base{Size: size, Data: old}
	}
	slot, err := os.Create(filepath.Join(dir, "slot"))
	if err != nil {
		t.Fatal(err)
	}
	defer slot.Close()
	j.Slot = slot
	j.Open = func(_ context.Context, at int64) (io.ReadCloser, error) {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		_, err = f.Seek(at, io.SeekStart)
		return f, err
	}
	if err := Apply(t.Context(), j); err != nil {
		t.Fatal(err)
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	fmt.Printf("peak %s KiB\n", regexp.MustCompile(`VmHWM:\s+(\d+)`).FindSubmatch(status)[1])
}
