package signature

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
)

// FileName is the name of a folder's signature within it.
const FileName = "model.sig"

// Suffix follows the name of a model's file in that of its signature.
const Suffix = ".sig"

// maxResources is more than a model may have files.
const maxResources = 100_000

// modelStatement is the predicate of OpenSSF model signing v1.
type modelStatement struct {
	Resources     []resource `json:"resources"`
	Serialization struct {
		Method   string `json:"method"`
		HashType string `json:"hash_type"`
	} `json:"serialization"`
}

type resource struct {
	Name      string `json:"name"`
	Algorithm string `json:"algorithm"`
	Digest    string `json:"digest"`
}

// File returns who signed a model that is one file, with a signature of OpenSSF model
// signing. What nobody among the keys signed as it is, is ErrUntrusted.
func (k *Keys) File(path string, raw []byte) (by string, err error) {
	signed, by, err := k.model(raw)
	if err != nil {
		return "", err
	}
	want, ok := signed["."]
	if !ok || len(signed) != 1 {
		return "", fmt.Errorf("%w: its signature is that of a folder of %d files, and it is one file", ErrUntrusted, len(signed))
	}
	return by, checkFile("", path, want)
}

// Folder returns who signed a model of several files, from their names to their paths. A file that
// is not signed, or signed and not there, is ErrUntrusted, but for the signature itself and for hidden
// ones that are not there, since hidden files belong to no model.
func (k *Keys) Folder(files map[string]string, raw []byte) (by string, err error) {
	signed, by, err := k.model(raw)
	if err != nil {
		return "", err
	}
	if _, ok := signed["."]; ok {
		return "", fmt.Errorf("%w: its signature is that of one file, and it is a folder", ErrUntrusted)
	}
	for _, name := range slices.Sorted(maps.Keys(signed)) {
		if _, ok := files[name]; !ok && !strings.HasPrefix(name, ".") && !strings.Contains(name, "/.") {
			return "", fmt.Errorf("%w: %.300q is signed and missing", ErrUntrusted, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		want, ok := signed[name]
		if name == FileName && !ok {
			continue
		}
		if !ok {
			return "", fmt.Errorf("%w: %.300q is not signed: remove it, or sign the model with it", ErrUntrusted, name)
		}
		if err := checkFile(name, files[name], want); err != nil {
			return "", err
		}
	}
	return by, nil
}

// model verifies a signature and returns the SHA-256 sums of the files that it covers.
func (k *Keys) model(raw []byte) (signed map[string][]byte, by string, err error) {
	s, by, err := k.open(raw)
	if err != nil {
		return nil, "", err
	}
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: its signature "+format, append([]any{ErrUntrusted}, args...)...)
	}
	if s.PredicateType != modelPredicate {
		return nil, "", bad("is of the type %.100q: sign it with model_signing 1.0 or later", s.PredicateType)
	}
	var m modelStatement
	if err := json.Unmarshal(s.Predicate, &m); err != nil {
		return nil, "", bad("cannot be read: %w", err)
	}
	if m.Serialization.Method != "files" || m.Serialization.HashType != "sha256" {
		return nil, "", bad("has the method %.50q with %.50q: sign it by files with sha256, the default", m.Serialization.Method, m.Serialization.HashType)
	}
	if len(m.Resources) == 0 || len(m.Resources) > maxResources {
		return nil, "", bad("lists %d files", len(m.Resources))
	}
	all := sha256.New()
	signed = map[string][]byte{}
	for _, r := range m.Resources {
		digest, err := hex.DecodeString(r.Digest)
		if err != nil || len(digest) != sha256.Size || r.Algorithm != "sha256" {
			return nil, "", bad("has no SHA-256 of %.300q", r.Name)
		}
		if _, twice := signed[r.Name]; twice {
			return nil, "", bad("lists %.300q twice", r.Name)
		}
		signed[r.Name] = digest
		all.Write(digest)
	}
	if len(s.Subject) != 1 || s.Subject[0].Digest["sha256"] != hex.EncodeToString(all.Sum(nil)) {
		return nil, "", bad("contradicts itself: its subject is not the digest of its files")
	}
	return signed, by, nil
}

func checkFile(name, path string, want []byte) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	sum := sha256.New()
	_, err = io.Copy(sum, f)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if subtle.ConstantTimeCompare(sum.Sum(nil), want) != 1 {
		if name == "" {
			return fmt.Errorf("%w: its file is not the one that was signed", ErrUntrusted)
		}
		return fmt.Errorf("%w: %.300q is not the file that was signed", ErrUntrusted, name)
	}
	return nil
}
