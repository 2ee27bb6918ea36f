package object

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

const digestOfNothing = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

func TestParseS3(t *testing.T) {
	for text, want := range map[string]S3Source{
		"s3://models/digits.onnx":                      {Bucket: "models", Key: "digits.onnx"},
		"s3://my.bucket/a/b/":                          {Bucket: "my.bucket", Key: "a/b/"},
		"s3://models/größe @2":                         {Bucket: "models", Key: "größe @2"},
		"s3://models/a@" + digestOfNothing:             {Bucket: "models", Key: "a", Digest: digestOfNothing},
		"s3://models/a@sha256:12@" + digestOfNothing:   {Bucket: "models", Key: "a@sha256:12", Digest: digestOfNothing},
		"s3://models/" + strings.Repeat("k", maxS3Key): {Bucket: "models", Key: strings.Repeat("k", maxS3Key)},
	} {
		if got, ok := ParseS3(text); !ok || got != want || got.String() != text {
			t.Errorf("%.60s: got %+v, %v", text, got, ok)
		}
	}
	for _, text := range []string{"", "s3://", "s3://models", "s3://models/", "s3://models//", "s3:///key", "s3://m/key", "s3://../key", "s3://127.0.0.1/key",
		"s3://models/a\nb", "s3://models/\xff", "s3://models/" + strings.Repeat("k", maxS3Key+1), "S3://models/a", "https://models/a", "s3://a b/c"} {
		if got, ok := ParseS3(text); ok {
			t.Errorf("%.60q is a source: %+v", text, got)
		}
	}
}

func FuzzParseS3(f *testing.F) {
	f.Add("s3://models/a@" + digestOfNothing)
	f.Add("s3://models/a/b")
	f.Fuzz(func(t *testing.T, text string) {
		if s, ok := ParseS3(text); ok && s.String() != text {
			t.Errorf("%q became %q", text, s)
		}
	})
}

func TestSignedByIsChecked(t *testing.T) {
	const key = "-----BEGIN PUBLIC KEY-----\\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE0000\\n-----END PUBLIC KEY-----"
	for spec, want := range map[string]string{
		`{source: "s3://models/a", signedBy: [hush]}`:                              "spec.signedBy[0]: must be public keys or certificates in PEM",
		`{source: "s3://models/a", signedBy: ["` + key + `"]}`:                     "spec.signedBy[0]: has a public key that cannot be read",
		`{source: "s3://models/a", signedBy: [{identity: rita@example.com}]}`:      "spec.signedBy[0]: needs the issuer of the identity",
		`{source: "s3://models/a", signedBy: [{idendity: rita@example.com}]}`:      `spec.signedBy[0].idendity: unknown field; did you mean "identity"?`,
		`{source: "s3://models/a", signedBy: [[x]]}`:                               "spec.signedBy[0]: must be a mapping, got",
		`{source: "release:a.onnx", signedBy: [x]}`:                                "spec.signedBy: the release that brings the file is signed",
		`{source: "s3://models/a", signedBy: [` + strings.Repeat("x, ", 17) + `]}`: "has 17 entries, at most 16",
	} {
		_, err := Kinds().Parse(strings.NewReader("apiVersion: oscine.dev/v1\nkind: Model\nmetadata: {name: digits}\nspec: " + spec + "\n"))
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hush") {
			t.Errorf("%.60s: got %v, want %s", spec, err, want)
		}
	}
}

// A key is a text, in a list beside identities, and is written as one again.
func TestSignersAreWrittenAsRead(t *testing.T) {
	const pem = "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEHyX2FqBaYqFtQjEUKUvUlA/CSVFH\nQwrI/VBctBC8m1xdAoiNQAKIZWQ4ugmKa4CnQITgwC/qyAM3CPMdkLWD/Q==\n-----END PUBLIC KEY-----\n"
	const head = "apiVersion: oscine.dev/v1\nkind: Model\nmetadata: {name: digits}\nspec: {source: 's3://models/a', signedBy: "
	text, err := json.Marshal(pem)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ list, want string }{
		{`[` + string(text) + `, {identity: rita@example.com, issuer: "https://a.example"}]`, `[` + string(text) + `,{"identity":"rita@example.com","issuer":"https://a.example"}]`},
		{`[{key: ` + string(text) + `}, {identityRegexp: "@example[.]com$", issuer: "https://a.example"}]`, `[` + string(text) + `,{"identityRegexp":"@example[.]com$","issuer":"https://a.example"}]`},
	} {
		objects, err := Kinds().Parse(strings.NewReader(head + c.list + "}\n"))
		if err != nil {
			t.Fatal(err)
		}
		got, err := json.Marshal(objects[0].(*Model).Spec.SignedBy)
		if err != nil || string(got) != c.want {
			t.Errorf("got %s, %v, want %s", got, err, c.want)
		}
		// As a client reads what a node sends.
		sent, err := json.Marshal(objects[0])
		if err != nil {
			t.Fatal(err)
		}
		state, err := Kinds().DecodeState(objects[0].Key(), sent, nil)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(state.Object, objects[0]) {
			t.Errorf("a client reads %+v of %+v", state.Object, objects[0])
		}
	}
}

func TestTrustedRootIsChecked(t *testing.T) {
	for models, want := range map[string]string{
		`{signedBy: [{identity: rita@example.com, issuer: "https://a.example"}]}`: "spec.models.signedBy[0]: an identity is verified by a trusted root: give it as spec.models.trustedRoot",
		`{trustedRoot: x}`:   "spec.models.trustedRoot: must be a trusted root of Sigstore",
		`{signedBy: [hush]}`: "spec.models.signedBy[0]: must be public keys",
	} {
		_, err := Kinds().Parse(strings.NewReader("apiVersion: oscine.dev/v1\nkind: Machine\nmetadata: {name: edge1}\nspec: {models: " + models + "}\n"))
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hush") {
			t.Errorf("%s: got %v, want %s", models, err, want)
		}
	}
}

func TestS3IsChecked(t *testing.T) {
	manifest := func(spec string) string {
		return "apiVersion: oscine.dev/v1\nkind: Model\nmetadata: {name: digits}\nspec: " + spec + "\n"
	}
	good := manifest("{source: 's3://models/digits.onnx', s3: {endpoint: 'https://minio.example:9000', region: eu-central-1, pathStyle: false, secret: minio}}")
	objects, err := Kinds().Parse(strings.NewReader(good))
	if err != nil {
		t.Fatal(err)
	}
	m := objects[0].(*Model)
	if m.SecretName() != "minio" || m.Spec.S3.PathStyle == nil || *m.Spec.S3.PathStyle || m.Registry() != "" || m.SourceID() == m.Spec.Source {
		t.Errorf("got %+v, %q", m.Spec.S3, m.SourceID())
	}
	for spec, want := range map[string]string{
		"{source: 's3://models'}":                                                    "spec.source: must be",
		"{source: '" + digestOfNothing + "', s3: {secret: a}}":                       "spec.s3: is only for sources that begin with s3://",
		"{source: 's3://m-1/a', s3: {endpoint: 'minio:9000'}}":                       "spec.s3.endpoint: must be https://HOST",
		"{source: 's3://m-1/a', s3: {endpoint: 'https://h/models'}}":                 "spec.s3.endpoint: must be https://HOST",
		"{source: 's3://m-1/a', s3: {endpoint: 'https://key:hush@h'}}":               "spec.s3.endpoint: must hold no credentials",
		"{source: 's3://m-1/a', s3: {region: 'a b'}}":                                "spec.s3.region",
		"{source: 's3://m-1/a', s3: {secret: 'wJalr/XUtn'}}":                         "spec.s3.secret",
		"{source: 's3://m-1/a', s3: {accessKey: a}}":                                 "spec.s3.accessKey: unknown field",
		"{ensemble: {steps: [{modelName: a, inputMap: {}, outputMap: {}}]}, s3: {}}": "spec.s3: an ensemble has no worker",
	} {
		_, err := Kinds().Parse(strings.NewReader(manifest(spec)))
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hush") {
			t.Errorf("%s: got %v, want %s", spec, err, want)
		}
	}
}
