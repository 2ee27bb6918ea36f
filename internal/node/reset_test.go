package node

import (
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"oscine.dev/oscine/internal/node/upgrade"
	"oscine.dev/oscine/internal/release"
	"oscine.dev/oscine/internal/update/slot"
)

// memoryESP is a disk of which only the ESP is there, in memory.
type memoryESP struct {
	files map[string]string
	calls []string // what was removed and wiped, in order
}

func (e *memoryESP) Open(string) (slot.Partition, error) { return nil, fs.ErrNotExist }

func (e *memoryESP) ESP(f func(slot.ESP) error) error { return f(espFiles{memoryESP: e}) }

type espFiles struct {
	slot.ESP
	*memoryESP
}

func (e espFiles) Open(name string) (slot.File, error) {
	if _, ok := e.files[name]; !ok {
		return nil, fs.ErrNotExist
	}
	return emptyFile{}, nil
}

func (e espFiles) Create(name string, content io.Reader, _ int64) error {
	text, err := io.ReadAll(content)
	e.files[name] = string(text)
	return err
}

func (e espFiles) Remove(name string) error {
	delete(e.files, name)
	e.calls = append(e.calls, "remove "+name)
	return nil
}

func (e espFiles) Wipe(name string) error {
	delete(e.files, name)
	e.calls = append(e.calls, "wipe "+name)
	return nil
}

func (e espFiles) Flush() error { return nil }

type emptyFile struct{ slot.File }

func (emptyFile) Close() error { return nil }

func resettable(t *testing.T, reboot error) (*Node, *memoryESP) {
	t.Helper()
	disk := &memoryESP{files: map[string]string{}}
	log := slog.New(slog.DiscardHandler)
	return &Node{
		config: Config{StateDir: t.TempDir(), Reboot: func(bool) error { return reboot }},
		slots:  slot.New(disk, nil), log: log, upgrades: upgrade.Open(upgrade.Config{File: filepath.Join(t.TempDir(), "upgrade.json"), Log: log}),
	}, disk
}

func marks(n *Node, disk *memoryESP) (onESP, onData bool) {
	_, onESP = disk.files[release.ESPReset]
	_, err := os.Stat(n.resetMark())
	return onESP, err == nil
}

// A reset that fails leaves no mark: a later boot would erase what is stored then.
func TestResetMarks(t *testing.T) {
	n, disk := resettable(t, nil)
	if err := n.Reset("anna"); err != nil {
		t.Fatal(err)
	}
	if onESP, onData := marks(n, disk); !onESP || !onData {
		t.Errorf("marked: on the ESP %t, on the data partition %t", onESP, onData)
	}
	n.dropStaleReset()
	if onESP, onData := marks(n, disk); !onESP || !onData {
		t.Error("the marks of a reset that is to come are gone")
	}

	broken := errors.New("PID 1 does not answer")
	n, disk = resettable(t, broken)
	if err := n.Reset("anna"); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	if onESP, onData := marks(n, disk); onESP || onData {
		t.Errorf("no restart: on the ESP %t, on the data partition %t", onESP, onData)
	}

	n, disk = resettable(t, nil)
	n.config.StateDir = filepath.Join(n.config.StateDir, "gone")
	if err := n.Reset("anna"); err == nil {
		t.Error("no state folder: no error")
	}
	if onESP, onData := marks(n, disk); onESP || onData {
		t.Errorf("no state folder: on the ESP %t, on the data partition %t", onESP, onData)
	}
}

// A mark on the ESP alone goes at a boot that has its data, and a Machine there before
// it: that may hold a key.
func TestStaleReset(t *testing.T) {
	n, disk := resettable(t, nil)
	disk.files[release.ESPReset] = "asked for by anna"
	n.dropStaleReset()
	if onESP, _ := marks(n, disk); onESP {
		t.Error("the mark is still on the ESP")
	}
	if want := []string{"wipe " + release.ESPMachine, "remove " + release.ESPReset}; !slices.Equal(disk.calls, want) {
		t.Errorf("got %q, want %q", disk.calls, want)
	}
	(&Node{}).dropStaleReset() // not on another Linux
}
