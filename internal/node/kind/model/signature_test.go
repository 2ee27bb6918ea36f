package model

import (
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"oscine.dev/oscine/internal/artifact"
	"oscine.dev/oscine/internal/artifact/artifacttest"
	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/serve/bucket"
	"oscine.dev/oscine/internal/serve/bucket/buckettest"
	"oscine.dev/oscine/internal/signature"
	"oscine.dev/oscine/internal/signature/keyless"
	"oscine.dev/oscine/internal/signature/signaturetest"
)

// An uploaded file is served only with a signature by one of the keys.
func TestSignedUpload(t *testing.T) {
	b := newBench(t)
	rita, other := signaturetest.New(t), signaturetest.New(t)
	m := b.upload(t, "graph")
	m.Spec.SignedBy = []object.Signer{{Key: rita.PEM}}
	refused := func(what, says string) {
		t.Helper()
		if err := b.c.Up(t.Context(), m); !errors.Is(err, signature.ErrUntrusted) || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want %q", what, err, says)
		}
	}
	refused("unsigned", "it has no signature: sign it with model_signing")
	sign := func(raw string) {
		t.Helper()
		if err := b.files.Sign(m.Spec.Source, []byte(raw)); err != nil {
			t.Fatal(err)
		}
	}
	sign(other.Sign(map[string]string{".": "graph"}))
	refused("by another key", "with another key")
	sign(rita.Sign(map[string]string{".": "other"}))
	refused("of another file", "not the one that was signed (spec.signedBy)")
	sign(rita.Sign(map[string]string{".": "graph"}))
	// The Machine's keys count too.
	keys, err := signature.NewKeys(nil, signature.Signer{Key: other.PEM})
	if err != nil {
		t.Fatal(err)
	}
	b.options.SignedBy = keys
	refused("not by the Machine's key", "(the Machine's spec.models.signedBy)")
	b.options.SignedBy = nil
	if err := b.c.Up(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	if st := b.c.Status(object.Observed{}).(*object.ModelStatus); !strings.HasPrefix(st.Signer, "key ") {
		t.Errorf("the status has the signer %q", st.Signer)
	}
	if err := b.files.Sign("sha256:"+strings.Repeat("0", 64), []byte("{}")); err == nil {
		t.Error("a signature of what is not here: no error")
	}
	if err := b.files.Sign(m.Spec.Source, []byte("x")); err == nil {
		t.Error("a signature that is no JSON: no error")
	}
}

// An identity's signature counts where the node has the trusted root of its Sigstore.
func TestSignedKeyless(t *testing.T) {
	b := newBench(t)
	sigstore := signaturetest.NewSigstore(t)
	m := b.upload(t, "graph")
	const rita, issuer = "rita@example.com", "https://accounts.example.com"
	m.Spec.SignedBy = []object.Signer{{Identity: rita, Issuer: issuer}}
	if err := b.files.Sign(m.Spec.Source, []byte(sigstore.Sign(rita, issuer, map[string]string{".": "graph"}))); err != nil {
		t.Fatal(err)
	}
	if err := b.c.Up(t.Context(), m); !errors.Is(err, signature.ErrUntrusted) || !strings.Contains(err.Error(), "spec.models.trustedRoot") {
		t.Errorf("without a trusted root: %v", err)
	}
	root, err := keyless.ParseRoot([]byte(sigstore.Root))
	if err != nil {
		t.Fatal(err)
	}
	b.options.TrustedRoot = root
	if err := b.c.Up(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	if st := b.c.Status(object.Observed{}).(*object.ModelStatus); st.Signer != rita+" ("+issuer+")" {
		t.Errorf("the status has the signer %q", st.Signer)
	}
}

// A model from a bucket has its signature beside its file, or in its folder, and one that is not
// signed does not take the place of one that is.
func TestSignedInABucket(t *testing.T) {
	b := newBench(t)
	b.options.Bucket = func(at *object.S3) (bucket.Access, error) { return bucket.Access{S3: *at}, nil }
	rita := signaturetest.New(t)
	s := buckettest.StartPublic(t)
	folder := map[string]string{"net.onnx": "graph", "weights": "w"}
	s.Put(map[string]string{"net.onnx": "graph", "net.onnx.sig": rita.Sign(map[string]string{".": "graph"}), "m/net.onnx": "graph", "m/weights": "w", "m/model.sig": rita.Sign(folder)})
	m := b.upload(t, "x")
	serve := func(key, version string) error {
		t.Helper()
		next := *m
		next.Spec.Source, next.Spec.S3, next.Spec.SignedBy, next.Spec.Version = "s3://"+buckettest.Bucket+"/"+key, &object.S3{Endpoint: s.URL}, []object.Signer{{Key: rita.PEM}}, version
		return b.c.Up(t.Context(), &next)
	}
	if err := serve("net.onnx", "1"); err != nil {
		t.Fatal(err)
	}
	b.locked(func() { b.serving.Phase = object.Running })
	if err := serve("m", "2"); err != nil {
		t.Fatal(err)
	}
	st := func() *object.ModelStatus { return b.c.Status(object.Observed{}).(*object.ModelStatus) }
	if st().Version != "2" || st().Update != nil {
		t.Fatalf("a signed folder: version %s, %+v", st().Version, st().Update)
	}
	for i, c := range []struct {
		says   string
		change map[string]string
	}{
		{`"weights" is not the file`, map[string]string{"m/weights": "W"}},
		{`"code.py" is not signed`, map[string]string{"m/weights": "w", "m/code.py": "x"}},
		{"is no Sigstore bundle", map[string]string{"m/model.sig": "x"}},
	} {
		s.Put(c.change)
		if err := serve("m", string(rune('3'+i))); err != nil {
			t.Fatal(err)
		}
		if update := st().Update; st().Version != "2" || update == nil || update.Phase != object.Failed || !strings.Contains(update.Message, c.says) {
			t.Errorf("%s: version %s, %+v", c.says, st().Version, update)
		}
	}
}

// A model from a registry is served with a signature of cosign, also where there is a broken one
// beside it; internal/artifact tests cosign's own.
func TestSignedInARegistry(t *testing.T) {
	b := newBench(t)
	registry := artifacttest.StartFaulty(t)
	rita := signaturetest.New(t)
	m := b.upload(t, "x")
	m.Spec.Source, m.Spec.SignedBy = "oci://"+registry.Host+"/net:1", []object.Signer{{Key: rita.PEM}}
	manifest := push(t, m.Spec.Source, map[string]string{"net.onnx": "graph"})
	if err := b.c.Up(t.Context(), m); !errors.Is(err, signature.ErrUntrusted) || !strings.Contains(err.Error(), "cosign sign --key") {
		t.Errorf("unsigned: %v", err)
	}
	attach := func(payloads ...string) {
		t.Helper()
		r, err := artifact.Parse("oci://" + registry.Host + "/net:" + strings.Replace(manifest, ":", "-", 1) + ".sig")
		if err != nil {
			t.Fatal(err)
		}
		_, err = artifact.Create(t.Context(), r, artifact.Access{}, func(s *artifact.Store) (ocispec.Descriptor, error) {
			config, err := s.PushBytes(t.Context(), ocispec.MediaTypeImageConfig, []byte("{}"))
			layers := make([]ocispec.Descriptor, len(payloads))
			for i, payload := range payloads {
				var e error
				layers[i], e = s.PushBytes(t.Context(), signature.SimpleMediaType, []byte(payload))
				layers[i].Annotations = map[string]string{signature.SimpleAnnotation: base64.StdEncoding.EncodeToString(rita.SignText([]byte(payload)))}
				err = errors.Join(err, e)
			}
			if err != nil {
				return config, err
			}
			return s.PushManifest(t.Context(), ocispec.Manifest{Config: config, Layers: layers})
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	large := strings.Repeat("x", 1<<20)
	attach(large)
	if err := b.c.Up(t.Context(), m); !errors.Is(err, signature.ErrUntrusted) || !strings.Contains(err.Error(), "a signature beside it cannot be read: ") {
		t.Errorf("with a large signature: %v", err)
	}
	attach(large, `{"critical":{"type":"cosign container image signature","image":{"docker-manifest-digest":"`+manifest+`"}}}`)
	if err := b.c.Up(t.Context(), m); err != nil {
		t.Errorf("with a large and a good signature: %v", err)
	}
	if st := b.c.Status(object.Observed{}).(*object.ModelStatus); !strings.HasPrefix(st.Signer, "key ") {
		t.Errorf("the status has the signer %q", st.Signer)
	}
}
