package systemtest

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"oscine.dev/oscine/internal/pack"
	"oscine.dev/oscine/internal/serve/channel"
	"oscine.dev/oscine/internal/serve/engine/enginetest"
)

// makeEnginePack makes a pack of the engine for tests, by hand as
// docs/packs.md says, and returns its file.
func makeEnginePack(n *testNode) string {
	n.t.Helper()
	return makeEnginePackOf(n, "1.0-1")
}

// makeEnginePackOf makes a version of the pack whose engine has some more arguments.
func makeEnginePackOf(n *testNode, version string, args ...string) string {
	n.t.Helper()
	root := n.t.TempDir()
	for _, dir := range []string{"dev", "proc", "sys", "tmp", "etc", "run/oscine", "model.d", "usr/bin"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			n.t.Fatal(err)
		}
	}
	goBuild(n.t, n.arch, filepath.Join(root, "usr/bin"), "oscine.dev/oscine/internal/serve/engine/enginetest/oscine-engine-test")
	manifest := pack.Manifest{
		Name: "made-up", Version: version, Arch: n.arch,
		Engines: []string{"made-up"}, Entrypoint: append([]string{"/usr/bin/oscine-engine-test", "--prefix", "t"}, args...),
		Formats:  []pack.Format{{Name: "made-up", Suffixes: []string{".otm"}, Magic: []pack.Magic{{Hex: hex.EncodeToString([]byte(enginetest.Magic))}}}},
		Platform: "made_up_otm", Protocols: channel.Versions(), MemoryBytes: 8 << 20,
	}
	text, err := json.Marshal(manifest)
	if err != nil {
		n.t.Fatal(err)
	}
	for name, content := range map[string][]byte{"pack.json": text, "model": nil} {
		if err := os.WriteFile(filepath.Join(root, name), content, 0o644); err != nil {
			n.t.Fatal(err)
		}
	}
	file := filepath.Join(n.t.TempDir(), "made-up.erofs")
	if err := pack.Write(n.t.Context(), root, file); err != nil {
		n.t.Fatal(err)
	}
	return file
}

// TestHostedEnginePack serves a model of a format that nothing in the node knows
// of, by an engine that only its pack declares.
func TestHostedEnginePack(t *testing.T) {
	d := newDaemon(t)
	n := d.testNode
	write := writing(t, t.TempDir())
	model := write("digits.otm", enginetest.Magic+"add\n")
	n.refuse([]string{"serve", model, "--wait", "30s"}, "no installed pack can run the model", ".otm files", "oscine pack install")
	n.run("delete", "model", "digits")
	n.run("pack", "install", makeEnginePack(n))
	n.refuse([]string{"serve", write("second.foo", "whatever\n"), "--wait", "30s"}, "none reads .foo files", ".otm (made-up)")
	n.run("delete", "model", "second")
	n.refuse([]string{"serve", model, "--memory", "4Mi", "--wait", "30s"}, "needs 8 MiB before it has loaded a model")
	n.run("serve", model, "--memory", "64Mi")
	request := write("request.json", `{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[1,2,3,4]}]}`)
	if got := n.run("infer", "digits", "-f", request); !strings.Contains(got, "[2,3,4,5]") {
		t.Errorf("the made-up engine answers:\n%s", got)
	}
	if got := n.run("describe", "model", "digits"); !strings.Contains(got, "test 1") {
		t.Errorf("describe lacks the engine:\n%s", got)
	}

	// The worker cannot make anything where its socket lies, and no other sees it.
	pid := d.pid("model", "digits")
	folder := fmt.Sprintf("/proc/%d/root/run/oscine", pid)
	if err := os.WriteFile(filepath.Join(folder, "link"), nil, 0o600); !errors.Is(err, syscall.EROFS) {
		t.Errorf("a file beside the worker's socket: got %v, want a read-only file system", err)
	}
	if info, err := os.Stat(filepath.Join(d.runDir, "models")); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the folder of sockets: %v, %v, want mode 0700", info.Mode(), err)
	}

	// The next daemon takes it over, with its model loaded.
	d.stop(syscall.SIGKILL)
	d.start()
	d.awaitPhase("model", "digits", "Running", soon)
	if again := d.pid("model", "digits"); again != pid {
		t.Errorf("the next daemon started the worker %d, before it was %d", again, pid)
	}
	if got := n.run("infer", "digits", "-f", request); !strings.Contains(got, "[2,3,4,5]") {
		t.Errorf("after the daemon's death the engine answers:\n%s", got)
	}
}
