package keys

import (
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/theupdateframework/go-tuf/v2/metadata"

	"oscine.dev/oscine/internal/durable"
)

// ErrPassphrase is returned for an encrypted key without the right passphrase.
var ErrPassphrase = errors.New("the key is encrypted and the passphrase is missing or wrong")

// Ends of the names of key files.
const (
	suffix       = ".key"
	publicSuffix = ".pub"
)

// maxFile bounds a key file in bytes.
const maxFile = 64 << 10

// Key is a key that signs releases.
type Key struct {
	ID     string // as TUF computes it
	Name   string // what it is for: the role that its file is named after
	Public *metadata.Key
	// Signer signs TUF metadata; nil where only the public half is known.
	Signer signature.Signer
}

// Generate makes a key and its files in dir, named after what it is for:
// NAME-ID.key with mode 0600, encrypted when there is a passphrase (scrypt and
// secretbox), and NAME-ID.pub, which others may have.
func Generate(dir, name string, passphrase []byte) (*Key, error) {
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		return nil, err
	}
	k, err := newKey(private)
	if err != nil {
		return nil, err
	}
	var text []byte
	if len(passphrase) > 0 {
		text, err = cryptoutils.MarshalPrivateKeyToEncryptedDER(private, cryptoutils.StaticPasswordFunc(passphrase))
		text = cryptoutils.PEMEncode(cryptoutils.EncryptedSigstorePrivateKeyPEMType, text)
	} else {
		text, err = cryptoutils.MarshalPrivateKeyToPEM(private)
	}
	if err != nil {
		return nil, fmt.Errorf("write a key: %w", err)
	}
	if err := durable.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	public, err := json.Marshal(k.Public)
	if err != nil {
		return nil, err
	}
	k.Name = name
	base := filepath.Join(dir, name+"-"+k.ID[:8])
	return k, errors.Join(durable.WriteFile(base+suffix, text, 0o600), durable.WriteFile(base+publicSuffix, append(public, '\n'), 0o644))
}

func newKey(private ed25519.PrivateKey) (*Key, error) {
	signer, err := signature.LoadED25519Signer(private)
	if err != nil {
		return nil, err
	}
	public, err := metadata.KeyFromPublicKey(private.Public())
	if err != nil {
		return nil, err
	}
	id, err := public.ID()
	return &Key{ID: id, Public: public, Signer: signer}, err
}

// Load reads all keys of a folder, sorted by file name. Of a key whose private
// half is elsewhere it returns the public one. passphrase is asked for once,
// when an encrypted key is met; it may be nil. Private keys that others than the
// owner may read are refused.
func Load(dir string, passphrase func() ([]byte, error)) ([]*Key, error) {
	entries, err := os.ReadDir(dir) // sorted: .key comes before .pub
	if err != nil {
		return nil, fmt.Errorf("read the keys: %w", err)
	}
	var all []*Key
	known := map[string]bool{}
	asked := remember(passphrase)
	for _, e := range entries {
		var k *Key
		switch file := filepath.Join(dir, e.Name()); filepath.Ext(file) {
		case suffix:
			k, err = readPrivate(file, asked)
		case publicSuffix:
			k, err = readPublic(file)
		default:
			continue
		}
		if err != nil {
			return nil, err
		}
		k.Name, _, _ = strings.Cut(e.Name(), "-")
		if !known[k.ID] {
			all = append(all, k)
		}
		known[k.ID] = true
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s holds no key: make some with oscine release keys generate", dir)
	}
	return all, nil
}

// remember asks at most once.
func remember(ask func() ([]byte, error)) func() ([]byte, error) {
	var told []byte
	return func() ([]byte, error) {
		if told != nil {
			return told, nil
		}
		if ask == nil {
			return nil, ErrPassphrase
		}
		text, err := ask()
		if err == nil && len(text) == 0 {
			err = ErrPassphrase
		}
		told = text
		return text, err
	}
}

// readFile reads a key file; others must not be able to read a private one.
func readFile(file string, private bool) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxFile {
		return nil, fmt.Errorf("%s is no key file", file)
	}
	if mode := info.Mode().Perm(); private && mode&0o077 != 0 {
		return nil, fmt.Errorf("%s may be read by others (mode %#o): chmod 600 it, and replace the key if others use this computer", file, mode)
	}
	return io.ReadAll(io.LimitReader(f, maxFile))
}

func readPrivate(file string, passphrase func() ([]byte, error)) (*Key, error) {
	text, err := readFile(file, true)
	if err != nil {
		return nil, err
	}
	k, err := parse(text, passphrase)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return k, nil
}

func readPublic(file string) (*Key, error) {
	text, err := readFile(file, false)
	if err != nil {
		return nil, err
	}
	public := new(metadata.Key)
	if err := json.Unmarshal(text, public); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if _, err := public.ToPublicKey(); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	id, err := public.ID()
	return &Key{ID: id, Public: public}, err
}

func parse(text []byte, passphrase func() ([]byte, error)) (*Key, error) {
	asked := false
	private, err := cryptoutils.UnmarshalPEMToPrivateKey(text, func(bool) ([]byte, error) {
		asked = true
		return passphrase()
	})
	if err != nil {
		if asked {
			return nil, fmt.Errorf("%w (%w)", ErrPassphrase, err)
		}
		return nil, err
	}
	ed, ok := private.(ed25519.PrivateKey)
	if !ok {
		return nil, errors.New("it is no Ed25519 key")
	}
	return newKey(ed)
}

// Outside reports an error where dir lies in the folder that is published, or
// the other way round.
func Outside(dir, published string) error {
	a, err := resolve(dir)
	if err != nil {
		return err
	}
	b, err := resolve(published)
	if err != nil {
		return err
	}
	if rel, err := filepath.Rel(b, a); err == nil && filepath.IsLocal(rel) {
		return fmt.Errorf("the keys in %s would be published with %s: keep them elsewhere", dir, published)
	}
	return nil
}

// resolve follows the links of the part of a path that is there.
func resolve(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	real, err := filepath.EvalSymlinks(path)
	if errors.Is(err, fs.ErrNotExist) && filepath.Dir(path) != path {
		above, err := resolve(filepath.Dir(path))
		return filepath.Join(above, filepath.Base(path)), err
	}
	return real, err
}
