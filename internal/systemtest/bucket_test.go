package systemtest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"oscine.dev/oscine/internal/serve/bucket/buckettest"
	"oscine.dev/oscine/internal/serve/engine/enginetest"
	"oscine.dev/oscine/internal/signature/signaturetest"
)

// TestHostedBucket serves models out of an S3 bucket, with the credentials of a Secret, and signed
// ones.
func TestHostedBucket(t *testing.T) {
	d := newDaemon(t)
	n := d.testNode
	n.run("pack", "install", makeEnginePack(n))
	s := buckettest.Start(t)
	s.Put(map[string]string{"nets/add.otm": enginetest.Magic + "add\n"})
	source := "s3://" + buckettest.Bucket + "/nets/add.otm"
	manifest := "apiVersion: oscine.dev/v1\nkind: Model\nmetadata: {name: waits}\nspec: {source: '" + source + "', s3: {endpoint: '" + s.URL + "', secret: minio}}\n"
	n.apply(manifest)
	says := func(what string) {
		t.Helper()
		n.eventually("the model to say "+what, soon, func() (string, bool) {
			out := n.run("describe", "model", "waits")
			return out, strings.Contains(out, what)
		})
	}
	says("waits for Secret/minio")
	set := func(secret string) {
		t.Helper()
		if _, errOut, code := n.tryWith(n.config, secret, "secret", "set", "minio", "AWS_ACCESS_KEY_ID="+buckettest.AccessKeyID, "--from-stdin", "AWS_SECRET_ACCESS_KEY"); code != 0 {
			t.Fatalf("secret set: %s", errOut)
		}
	}
	set("wrong")
	says("the AWS_SECRET_ACCESS_KEY of Secret/minio does not belong")
	set(buckettest.SecretAccessKey)
	n.awaitPhase("model", "waits", "Running", soon)
	request := filepath.Join(t.TempDir(), "request.json")
	if err := os.WriteFile(request, []byte(`{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[1,2,3,4]}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := n.run("infer", "waits", "-f", request); !strings.Contains(got, "[2,3,4,5]") {
		t.Errorf("the model answers:\n%s", got)
	}
	n.refuse([]string{"secret", "rm", "minio"}, "is used by Model/waits")

	// oscine serve pins what it pulled.
	flags := []string{"--s3-endpoint", s.URL, "--s3-secret", "minio"}
	n.run(append([]string{"serve", source, "--name", "pinned"}, flags...)...)
	st, _ := n.object("model", "pinned")["status"].(map[string]any)
	if pinned, _ := st["source"].(string); !strings.HasPrefix(pinned, source+"@sha256:") || !strings.HasSuffix(pinned, st["digest"].(string)) {
		t.Errorf("serve pins %v, the digest is %v", st["source"], st["digest"])
	}
	if out := n.run("model", "list", "-o", "wide"); !strings.Contains(out, "Model/pinned,Model/waits") {
		t.Errorf("model list: %s", out)
	}
	n.refuse(append([]string{"model", "pull", "s3://" + buckettest.Bucket + "/nets/ad.otm"}, flags...), "model not found", `there are ["add.otm"]`)
	n.refuse([]string{"model", "pull", source, "--s3-endpoint", s.URL}, "S3 server denied access", "name a Secret that has some")
	n.refuse([]string{"model", "pull", source, "--s3-endpoint", s.URL, "--s3-secret", "none"}, "Secret/none, which is not there")

	// A file that is replaced by one that does not load: the one before goes on.
	s.Put(map[string]string{"nets/add.otm": "not a model"})
	n.apply(strings.Replace(manifest, "secret: minio}", "secret: minio}, version: '2'", 1))
	n.eventually("the new file to be refused", soon, func() (string, bool) {
		out := n.run("describe", "model", "waits")
		return out, strings.Contains(out, "Failed")
	})
	if got := n.run("infer", "waits", "-f", request); !strings.Contains(got, "[2,3,4,5]") {
		t.Errorf("after a file that is no model it answers:\n%s", got)
	}

	// Of a model that has to be signed, what was tampered with does not replace what is served.
	rita := signaturetest.New(t)
	content := enginetest.Magic + "add\n"
	s.Put(map[string]string{"nets/add.otm": content, "nets/add.otm.sig": rita.Sign(map[string]string{".": content})})
	signed := func(version string) string {
		return strings.Replace(strings.Replace(manifest, "waits", "signed", 1), "secret: minio}", "secret: minio}, version: '"+version+"', signedBy: ["+strconv.Quote(rita.PEM)+"]", 1)
	}
	n.apply(signed("1"))
	n.awaitPhase("model", "signed", "Running", soon)
	if st, _ := n.object("model", "signed")["status"].(map[string]any); !strings.HasPrefix(fmt.Sprint(st["signer"]), "key ") {
		t.Errorf("describe shows the signer %v", st["signer"])
	}
	s.Put(map[string]string{"nets/add.otm": content + "# tampered with\n"})
	n.apply(signed("2"))
	n.eventually("the tampered file to be refused", soon, func() (string, bool) {
		out := n.run("describe", "model", "signed")
		return out, strings.Contains(out, "model not trusted: its file is not the one that was signed (spec.signedBy)")
	})
	if got := n.run("infer", "signed", "-f", request); !strings.Contains(got, "[2,3,4,5]") {
		t.Errorf("after a tampered file it answers:\n%s", got)
	}
	// From this computer the signature goes along.
	local := filepath.Join(t.TempDir(), "mine.otm")
	if err := errors.Join(os.WriteFile(local, []byte(content), 0o600), os.WriteFile(local+".sig", []byte(rita.Sign(map[string]string{".": content})), 0o600)); err != nil {
		t.Fatal(err)
	}
	n.run("serve", local)
	digest, _ := n.object("model", "mine")["status"].(map[string]any)["digest"].(string)
	n.apply("apiVersion: oscine.dev/v1\nkind: Model\nmetadata: {name: mine}\nspec: {source: '" + digest + "', signedBy: [" + strconv.Quote(rita.PEM) + "]}\n")
	n.eventually("the uploaded signature to count", soon, func() (string, bool) {
		out := n.run("describe", "model", "mine")
		return out, strings.Contains(out, "signer: key ") && !strings.Contains(out, "Failed")
	})

	// The server goes; a restarted model still has its files.
	s.Close()
	n.run("restart", "model", "pinned")
	n.awaitPhase("model", "pinned", "Running", soon)
}
