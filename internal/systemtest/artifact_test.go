package systemtest

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"oscine.dev/oscine/internal/artifact/artifacttest"
	"oscine.dev/oscine/internal/linux"
	"oscine.dev/oscine/internal/serve/engine/enginetest"
)

// TestHostedArtifacts takes a pack and models through Docker's registry, with
// passwords, and through an OCI layout in a tar file.
func TestHostedArtifacts(t *testing.T) {
	d := newDaemon(t)
	n := d.testNode
	host := artifacttest.StartDocker(t, "open sesame")
	docker := t.TempDir()
	t.Setenv("DOCKER_CONFIG", docker)
	file := makeEnginePack(n)
	reference := host + "/packs/made-up:1"
	n.refuse([]string{"pack", "push", file, reference}, "registry denied access", "docker login "+host)
	login, err := json.Marshal(map[string]any{"auths": map[string]any{host: map[string]string{"username": "rita", "password": "open sesame"}}})
	if err := errors.Join(err, os.WriteFile(filepath.Join(docker, "config.json"), login, 0o600)); err != nil {
		t.Fatal(err)
	}
	if out := n.run("pack", "push", file, reference); !strings.Contains(out, host+"/packs/made-up@sha256:") {
		t.Errorf("pack push: %s", out)
	}
	if out := n.run("pack", "inspect", reference); !strings.Contains(out, "made-up .otm") || !strings.Contains(out, "signed by") {
		t.Errorf("pack inspect: %s", out)
	}
	n.refuse([]string{"pack", "pull", reference}, "registry denied access", "oscine secret set NAME --registry "+host)
	if _, errOut, code := n.tryWith(n.config, "open sesame", "secret", "set", "registry", "--registry", host, "--username", "rita", "--from-stdin", "password"); code != 0 {
		t.Fatalf("secret set: %s", errOut)
	}
	if out := n.run("pack", "pull", reference); !strings.Contains(out, "pack/made-up 1.0-1 installed, signed by") {
		t.Errorf("pack pull: %s", out)
	}
	integrity := "checked block by block (dm-verity)"
	if _, err := linux.MappingTargets(); err != nil {
		integrity = "checked as a whole when it is mounted: dm-verity cannot be used: device mapper"
	}
	if out := n.run("pack", "inspect", "made-up"); !strings.Contains(out, integrity) || !strings.Contains(out, host+"/packs/made-up@sha256:") {
		t.Errorf("pack inspect lacks %q or from where it was fetched:\n%s", integrity, out)
	}

	// A pack that an admin of another cluster has signed.
	stranger := newTestNode(t, t.TempDir(), loopback(freePort(t)))
	stranger.run("pack", "push", file, host+"/packs/strange:1")
	n.refuse([]string{"pack", "pull", host + "/packs/strange:1"}, "pack not trusted", "stranger to this node's authority")

	// By a tar file, as on a stick.
	tar := filepath.Join(t.TempDir(), "packs.tar")
	n.run("pack", "push", file, "oci:"+tar+":made-up")
	n.run("pack", "remove", "made-up")
	if out := n.run("pack", "pull", "oci:"+tar+":made-up"); !strings.Contains(out, "installed, signed by") {
		t.Errorf("pack pull of a tar file: %s", out)
	}

	// A model, by its manifest, before it is there.
	model := filepath.Join(t.TempDir(), "add.otm")
	if err := os.WriteFile(model, []byte(enginetest.Magic+"add\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	source := "oci://" + host + "/models/add:1"
	n.apply("apiVersion: oscine.dev/v1\nkind: Model\nmetadata: {name: waits}\nspec: {source: '" + source + "'}\n")
	n.awaitOutput("artifact not found", "describe", "model", "waits")
	pushed := strings.Fields(n.run("model", "push", model, source))
	n.awaitPhase("model", "waits", "Running", soon)
	request := filepath.Join(t.TempDir(), "request.json")
	if err := os.WriteFile(request, []byte(`{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[1,2,3,4]}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := n.run("infer", "waits", "-f", request); !strings.Contains(got, "[2,3,4,5]") {
		t.Errorf("the model answers:\n%s", got)
	}
	pinned := pushed[len(pushed)-1]
	if out := n.run("serve", source, "--dry-run"); !strings.Contains(out, "source: "+source) {
		t.Errorf("serve --dry-run: %s", out)
	}
	n.run("serve", source, "--name", "second")
	if st, _ := n.object("model", "second")["status"].(map[string]any); st["source"] != pinned {
		t.Errorf("serve pins %v, want %s", st["source"], pinned)
	}
	if out := n.run("model", "list", "-o", "wide"); !strings.Contains(out, pinned[strings.LastIndex(pinned, "@")+1:]) || !strings.Contains(out, "Model/second,Model/waits") {
		t.Errorf("model list: %s", out)
	}
	n.refuse([]string{"model", "pull", "oci://" + host + "/packs/made-up:1"}, "holds no model that can be served")
	n.refuse([]string{"serve", "oci://" + host + "/models/none:1"}, "artifact not found")

	// The registry refuses the node, which still has the model.
	if _, errOut, code := n.tryWith(n.config, "no", "secret", "set", "registry", "--registry", host, "--username", "rita", "--from-stdin", "password"); code != 0 {
		t.Fatalf("secret set: %s", errOut)
	}
	before := n.pid("model", "second")
	n.run("restart", "model", "second")
	n.eventually("another worker of the model", soon, func() (string, bool) {
		pid := n.pid("model", "second")
		return fmt.Sprint("process ", pid), pid != 0 && pid != before
	})
	n.awaitPhase("model", "second", "Running", soon)
	n.run("model", "push", model, "oci:"+tar+":add")
	n.run("serve", "oci:"+tar+":add", "--name", "third")
}
