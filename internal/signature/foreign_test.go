package signature

import (
	"cmp"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// modelSigning runs OpenSSF's own model_signing, unchanged, and returns whether it succeeded.
func modelSigning(t *testing.T) func(args ...string) (string, bool) {
	t.Helper()
	pins, err := os.ReadFile("testdata/model-signing.txt")
	if err != nil {
		t.Fatal(err)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Skipf("needs a folder for what was downloaded: %v", err)
	}
	cache = cmp.Or(os.Getenv("OSCINE_CACHE"), filepath.Join(cache, "oscine"))
	digest := sha256.Sum256(pins)
	folder := filepath.Join(cache, "python-clients-"+hex.EncodeToString(digest[:])[:16])
	if _, err := os.Stat(filepath.Join(folder, "complete")); err != nil {
		t.Skipf("needs OpenSSF's model_signing: run scripts/python-clients.sh internal/signature/testdata/model-signing.txt: %v", err)
	}
	return func(args ...string) (string, bool) {
		out, err := exec.CommandContext(t.Context(), filepath.Join(folder, "bin", "python"), append([]string{"-m", "model_signing"}, args...)...).CombinedOutput()
		return string(out), err == nil
	}
}

func writePEM(t *testing.T, file, kind string, der []byte) string {
	t.Helper()
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func writeKey(t *testing.T, key *ecdsa.PrivateKey) string {
	t.Helper()
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return writePEM(t, filepath.Join(t.TempDir(), "key.pem"), "EC PRIVATE KEY", der)
}

// TestModelSigningSigns verifies what OpenSSF's own program signed, by key and by certificate, a file and
// a folder, and refuses what that refuses.
func TestModelSigningSigns(t *testing.T) {
	run := modelSigning(t)
	must := func(args ...string) {
		t.Helper()
		if out, ok := run(args...); !ok {
			t.Fatalf("%v: %s", args, out)
		}
	}
	content := map[string]string{"net.onnx": "graph", "sub/weights": "w", ".gitattributes": "x"}
	served := func(paths map[string]string) map[string]string {
		without := map[string]string{}
		for name, path := range paths {
			if name[0] != '.' {
				without[name] = path
			}
		}
		return without
	}
	for _, curve := range []elliptic.Curve{elliptic.P256(), elliptic.P384(), elliptic.P521()} {
		key := newKey(t, curve)
		private, k, other := writeKey(t, key), trust(t, publicPEM(t, key.Public())), trust(t, publicPEM(t, newKey(t, curve).Public()))
		paths := lay(t, content)
		folder := filepath.Dir(paths["net.onnx"])
		sig := filepath.Join(folder, FileName)
		must("sign", "key", folder, "--private_key", private, "--signature", sig)
		raw, err := os.ReadFile(sig)
		if err != nil {
			t.Fatal(err)
		}
		files := served(paths)
		files[FileName] = sig
		if by, err := k.Folder(files, raw); err != nil || by == "" {
			t.Errorf("%s: %q, %v", curve.Params().Name, by, err)
		}
		if _, err := other.Folder(files, raw); !errors.Is(err, ErrUntrusted) {
			t.Errorf("%s, another key: %v", curve.Params().Name, err)
		}
		public := filepath.Join(t.TempDir(), "key.pub")
		if err := os.WriteFile(public, []byte(publicPEM(t, key.Public())), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			name   string
			change func() error
			ok     bool
		}{
			{"as signed", func() error { return nil }, true},
			{"an extra file", func() error {
				files["extra"] = filepath.Join(folder, "extra")
				return os.WriteFile(files["extra"], []byte("x"), 0o600)
			}, false},
			{"a tampered file", func() error {
				delete(files, "extra")
				return errors.Join(os.Remove(filepath.Join(folder, "extra")), os.WriteFile(files["sub/weights"], []byte("W"), 0o600))
			}, false},
			{"a missing file", func() error {
				delete(files, "sub/weights")
				return os.Remove(filepath.Join(folder, "sub", "weights"))
			}, false},
		} {
			if err := c.change(); err != nil {
				t.Fatal(err)
			}
			_, err := k.Folder(files, raw)
			out, theirs := run("verify", "key", folder, "--signature", sig, "--public_key", public)
			if (err == nil) != c.ok || theirs != c.ok || err != nil && !errors.Is(err, ErrUntrusted) {
				t.Errorf("%s, %s: ours says %v, theirs %v: %s", curve.Params().Name, c.name, err, theirs, out)
			}
		}
	}

	// One file, with a certificate.
	rootKey, midKey, key := newKey(t, elliptic.P256()), newKey(t, elliptic.P256()), newKey(t, elliptic.P384())
	root := authority(t, "root", rootKey, rootKey, nil, nil)
	mid := authority(t, "between", midKey, rootKey, root, nil)
	leaf := authority(t, "rita", key, midKey, mid, func(c *x509.Certificate) { c.IsCA, c.KeyUsage = false, x509.KeyUsageDigitalSignature })
	dir, file := t.TempDir(), lay(t, content)["net.onnx"]
	must("sign", "certificate", file, "--private_key", writeKey(t, key), "--signing_certificate", writePEM(t, filepath.Join(dir, "leaf"), "CERTIFICATE", leaf.Raw),
		"--certificate_chain", writePEM(t, filepath.Join(dir, "mid"), "CERTIFICATE", mid.Raw), "--signature", file+Suffix)
	raw, err := os.ReadFile(file + Suffix)
	if err != nil {
		t.Fatal(err)
	}
	if by, err := trust(t, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.Raw}))).File(file, raw); err != nil || by != "CN=rita" {
		t.Errorf("by certificate: %q, %v", by, err)
	}
	stranger := authority(t, "root", key, key, nil, nil)
	if _, err := trust(t, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: stranger.Raw}))).File(file, raw); !errors.Is(err, ErrUntrusted) {
		t.Errorf("by the certificate of another authority: %v", err)
	}
}
