package rules

import (
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "oscine.dev/oscine/"

// layers orders the packages from the ground up. A package imports only from
// layers below its own.
func layers() [][]string {
	return [][]string{
		{"internal/pattern", "internal/uki/ukitest", "internal/attest", "internal/luks", "internal/signature/signaturetest"},
		{"internal/linux", "internal/version", "internal/histogram", "internal/quantity", "internal/printable", "internal/listen", "internal/bpf", "internal/release", "internal/durable", "internal/bounded", "internal/serve/ensemble", "internal/signature", "internal/samples/synthetic"},
		{"internal/signature/keyless"},
		{"internal/disk/empty", "internal/unixconn"},
		{"internal/encryption"},
		{"internal/artifact"},
		{"internal/update", "internal/uki", "internal/journal", "internal/tensor", "internal/pki", "internal/debian", "internal/place", "internal/hardware", "internal/image/cpio", "internal/api/oscinepb", "internal/serve/front/oip/inferencepb", "internal/serve/triton/modelconfigpb", "internal/rules", "internal/gguf", "internal/licence", "internal/isolate/urgency", "internal/isolate/schedext", "internal/isolate/runqueue"},
		{"internal/object", "internal/inventory", "internal/nvml", "internal/api/oscinepb/oscinepbconnect", "internal/serve/channel", "internal/serve/region", "internal/serve/h2c", "internal/serve/language", "internal/serve/oip", "internal/serve/chat", "internal/serve/picture", "internal/serve/rows", "internal/metrics", "internal/hardware/render", "internal/hardware/hardwaretest", "internal/nvml/nvmltest", "internal/gguf/gguftest", "internal/pypi"},
		{"internal/kmod", "internal/kernelmodule", "internal/secureboot", "internal/sysctl", "internal/configuration", "internal/update/delta", "internal/update/keys", "internal/optimize"},
		{"internal/image/layout"},
		{"internal/artifact/artifacttest", "internal/attest/attesttest"},
		{"internal/update/source", "internal/update/share"},
		{"internal/object/explain", "internal/boot", "internal/network", "internal/disk", "internal/doctor", "internal/isolate", "internal/container", "internal/pack", "internal/samples", "internal/serve/core", "internal/serve/trial", "internal/serve/worker", "internal/serve/bundle", "internal/serve/triton", "internal/image", "internal/sim", "internal/client", "internal/bench/latency", "internal/bench/loadgen"},
		{"internal/update/repository"},
		{"internal/update/repository/repositorytest", "internal/serve/modelpack", "internal/serve/bucket", "internal/serve/bucket/buckettest", "internal/optimize/job"},
		{"internal/update/slot", "internal/install"},
		{"internal/update/stick"},
		{"internal/serve/engine/clib", "internal/serve/engine/modeltest"},
		{"internal/serve/engine/shim"},
		{"internal/serve/engine/litert", "internal/serve/engine/openvino", "internal/serve/engine/tensorflow", "internal/serve/engine/executorch", "internal/serve/engine/pytorch", "internal/serve/engine/onnx", "internal/serve/engine/llama", "internal/serve/engine/enginetest", "internal/bench/classes", "internal/bench/serving", "internal/serve/front", "internal/serve/fastpath", "internal/samples/fetch"},
		{"internal/serve/servetest", "internal/serve/engine"},
		{"internal/serve/front/oip", "internal/serve/front/kserve", "internal/serve/front/openai"},
		{"internal/serve/front/oip/rpc", "internal/serve/tracing"},
		{"internal/serve"},
		{"internal/node/allocate", "internal/node/access", "internal/node/identity"},
		{"internal/node/reconcile"},
		{"internal/node/sandbox"},
		{"internal/node/upgrade"},
		{"internal/node/sandbox/sandboxtest", "internal/node/kind/workload", "internal/node/kind/model", "internal/node/kind/secret"},
		{"internal/machine", "internal/node"},
		{"internal/machine/machinetest", "internal/api"},
		{"internal/web", "internal/demo", "internal/bench", "internal/bench/guest", "internal/bench/isolation/figure", "internal/systemtest"},
		{"internal/bench/guest/guesttest"},
		{"internal/cli"},
	}
}

// forbidden says what a program or package must never contain, however far
// below, and why. A path that ends in / stands for all below it.
var forbidden = []struct {
	from   string
	never  []string
	reason string
}{
	{"cmd/init", []string{"net/http", "github.com/containerd/", "google.golang.org/", "connectrpc.com/", "k8s.io/", "go.yaml.in/yaml/v3", module + "internal/object", module + "internal/node", module + "internal/network"},
		"PID 1 must be readable in one sitting and cannot panic: less code, fewer ways"},
	{"internal/linux", []string{module + "internal/", "net/http", "github.com/"},
		"it is the ground that PID 1 stands on"},
	{"internal/place", []string{"net/http", module + "internal/linux", module + "internal/object", module + "internal/hardware", module + "internal/node/", module + "internal/api/", module + "internal/isolate"},
		"placement is pure but for how amounts are read and shown, so that the simulator and a cluster decide as a node does"},
	{"internal/hardware", []string{"net/http", "github.com/containerd/", module + "internal/linux", module + "internal/object", module + "internal/place", module + "internal/node/", module + "internal/serve/"},
		"reading a machine needs nothing of Oscine but how text is shown, and other programs may do it"},
	{"internal/object", []string{"net/http", "github.com/containerd/"},
		"manifests are checked on a laptop and in an editor, without a node"},
	{"internal/serve/core", []string{"net/http", "google.golang.org/grpc", "connectrpc.com/"},
		"serving knows no protocol, so that each is a front of its own"},
	{"internal/cli", []string{"github.com/containerd/containerd/v2/client", module + "internal/node", module + "internal/container"},
		"the person's tool talks to a node and does not contain one"},
	{"cmd/oscine-log", []string{"net/http", "github.com/containerd/", "google.golang.org/", module + "internal/node"},
		"one such process stands beside every container, its memory counts"},
	{"cmd/oscine-engine", []string{"net/http", "github.com/containerd/", "google.golang.org/grpc", "google.golang.org/protobuf/proto", "google.golang.org/protobuf/reflect/", module + "internal/node"},
		"one such process runs per model instance, its memory counts"},
	{"cmd/oscine-nvml", []string{"net/http", "github.com/containerd/", "google.golang.org/", module + "internal/node"},
		"it is started for every question, and runs with the vendor's library inside"},
}

// listed is what go list says of a package.
type listed struct {
	ImportPath   string
	Name         string
	Dir          string
	Imports      []string
	Deps         []string
	TestGoFiles  []string
	XTestGoFiles []string
}

func listPackages(t *testing.T) []listed {
	t.Helper()
	command := exec.Command("go", "list", "-e", "-json=ImportPath,Name,Dir,Imports,Deps,TestGoFiles,XTestGoFiles", module+"...")
	command.Dir = root
	out, err := command.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		t.Fatalf("go list: %v\n%s", err, exit.Stderr)
	}
	if err != nil {
		t.Skipf("needs the go command: %v", err)
	}
	var packages []listed
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return packages
		} else if err != nil {
			t.Fatal(err)
		}
		packages = append(packages, p)
	}
}

// TestNoTracePages: gRPC's pages about requests render templates, which call methods by
// their names, so the linker keeps every method of every type. The daemon was 5.6 MB
// larger with them.
func TestNoTracePages(t *testing.T) {
	command := exec.Command("go", "list", "-deps", "-tags", "grpcnotrace", module+"cmd/oscined") // as it is built
	command.Dir = root
	out, err := command.Output()
	if err != nil {
		t.Skipf("needs the go command: %v", err)
	}
	if slices.Contains(strings.Fields(string(out)), "golang.org/x/net/trace") {
		t.Error("oscined contains golang.org/x/net/trace")
	}
}

func TestImportsPointDownward(t *testing.T) {
	rank := map[string]int{}
	for i, layer := range layers() {
		for _, name := range layer {
			rank[module+name] = i
		}
	}
	for _, p := range listPackages(t) {
		if p.Name == "main" {
			continue // nobody can import it
		}
		own, known := rank[p.ImportPath]
		if !known {
			t.Errorf("%s has no layer: give it a place in the table of layers", p.ImportPath)
			continue
		}
		for _, imported := range p.Imports {
			if other, ours := rank[imported]; ours && other >= own {
				t.Errorf("%s (layer %d) imports %s (layer %d): dependencies point downward", p.ImportPath, own, imported, other)
			}
		}
	}
}

func TestForbiddenDependencies(t *testing.T) {
	packages := map[string]listed{}
	for _, p := range listPackages(t) {
		packages[p.ImportPath] = p
	}
	for _, rule := range forbidden {
		p, ok := packages[module+rule.from]
		if !ok {
			t.Logf("%s does not exist yet", rule.from)
			continue
		}
		for _, dep := range p.Deps {
			if slices.ContainsFunc(rule.never, func(never string) bool { return matches(dep, never) }) {
				t.Errorf("%s contains %s (%s): %s", rule.from, dep, strings.Join(path(packages, p.ImportPath, dep), " → "), rule.reason)
			}
		}
	}
}

// TestPlacementIsPure looks at what the package itself imports: below it, fmt
// alone brings os along.
func TestPlacementIsPure(t *testing.T) {
	for _, p := range listPackages(t) {
		if p.ImportPath != module+"internal/place" {
			continue
		}
		for _, never := range []string{"os", "io/fs", "net", "os/exec", "syscall", "math/rand", "math/rand/v2", "log/slog"} {
			if slices.Contains(p.Imports, never) {
				t.Errorf("%s imports %s: the same request on the same machine gets the same answer", p.ImportPath, never)
			}
		}
	}
}

func matches(dep, never string) bool {
	return dep == never || strings.HasSuffix(never, "/") && strings.HasPrefix(dep, never)
}

// path finds by which of our packages dep came in.
func path(packages map[string]listed, from, dep string) []string {
	if slices.Contains(packages[from].Imports, dep) {
		return []string{from, dep}
	}
	for _, next := range packages[from].Imports {
		if p, ours := packages[next]; ours && slices.Contains(p.Deps, dep) {
			return append([]string{from}, path(packages, next, dep)...)
		}
	}
	return []string{from, "…", dep}
}

// TestProductionCodeHasNoTestCode keeps testing out of our code in the programs. A module of
// others has it in its own (digitorus/pkcs7, under sigstore-go).
func TestProductionCodeHasNoTestCode(t *testing.T) {
	all, packages := listPackages(t), map[string]listed{}
	for _, p := range all {
		packages[p.ImportPath] = p
	}
	for _, p := range all {
		if p.Name != "main" {
			continue
		}
		for _, name := range append([]string{p.ImportPath}, p.Deps...) {
			if slices.Contains(packages[name].Imports, "testing") {
				t.Errorf("program %s contains the package testing, by %s", p.ImportPath, name)
			}
		}
	}
}

func TestLayersNameEachPackageOnce(t *testing.T) {
	seen := map[string]int{}
	for _, layer := range layers() {
		for _, name := range layer {
			seen[name]++
		}
	}
	for _, name := range slices.Sorted(maps.Keys(seen)) {
		if seen[name] > 1 {
			t.Errorf("%s is in %d layers", name, seen[name])
		}
	}
}
