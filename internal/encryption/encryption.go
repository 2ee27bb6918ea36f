package encryption

import (
	"crypto/rand"
	"encoding/base32"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/go-tpm/tpm2/transport"
	"golang.org/x/sys/unix"

	"oscine.dev/oscine/internal/attest"
	"oscine.dev/oscine/internal/disk/empty"
	"oscine.dev/oscine/internal/linux"
	"oscine.dev/oscine/internal/luks"
	"oscine.dev/oscine/internal/release"
)

// Kinds of tokens in the LUKS header, which name the key slots of the TPM and of the
// recovery key.
const (
	tpmToken      = "oscine-tpm"
	recoveryToken = "oscine-recovery"
)

// ErrRecoveryKey is returned by Unlock for a key that does not open the partition.
var ErrRecoveryKey = errdefs.ErrPermissionDenied.WithMessage("that is not this data partition's recovery key")

// Label is the label of the LUKS header.
const Label = "oscine-data"

// MinSize is the least that a partition needs, in bytes.
const MinSize = release.EncryptedStart + release.EmptyDataSize

// tpmWait is how long the kernel may take to show the TPM.
const tpmWait = 5 * time.Second

// openTPM opens the machine's TPM once the kernel shows it, for at most that long.
func openTPM(wait time.Duration) (transport.TPMCloser, error) {
	for end := time.Now().Add(wait); ; time.Sleep(50 * time.Millisecond) {
		tpm, err := attest.Open()
		if err == nil || !errors.Is(err, attest.ErrNoTPM) || time.Now().After(end) {
			return tpm, err
		}
	}
}

// passphrase is that of a key slot that the TPM opens.
func passphrase() []byte {
	b := make([]byte, 32)
	_, _ = rand.Read(b) // never fails, see crypto/rand
	return b
}

// Sealed is a new key in the hands of the TPM, for a partition that Create makes.
type Sealed struct {
	passphrase []byte
	sealed     *sealed
}

// Seal makes a key and has the TPM seal it. It proves that the TPM can do so before
// anything is erased.
func Seal() (*Sealed, error) {
	tpm, err := openTPM(tpmWait)
	if err != nil {
		return nil, err
	}
	defer tpm.Close()
	s := &Sealed{passphrase: passphrase()}
	s.sealed, err = seal(tpm, s.passphrase)
	return s, err
}

// Create erases a partition, and makes it an encrypted one that is open and empty, as a
// file such as release.EmptyData has it. It returns the open one's node. The header
// comes last: a power failure before leaves a partition that cannot be mounted.
func Create(partition string, s *Sealed, file string, alive func()) (node string, err error) {
	f, err := os.OpenFile(partition, os.O_RDWR|unix.O_EXCL, 0)
	if err != nil {
		return "", err
	}
	err = empty.Erase(f, alive)
	if err = errors.Join(err, f.Close()); err != nil {
		return "", err
	}
	if f, err = os.OpenFile(partition, os.O_RDWR, 0); err != nil {
		return "", err
	}
	defer f.Close()
	key := luks.NewKey()
	header := luks.Create(key, Label)
	slot, err := header.AddKey(f, s.passphrase, key)
	if err != nil {
		return "", err
	}
	if err := header.SetToken(tpmToken, slot, s.sealed.fields()); err != nil {
		return "", err
	}
	if node, err = openMapping(f, header, key); err != nil {
		return "", err
	}
	if err = writeEmpty(node, file); err == nil {
		err = header.Write(f)
	}
	if err != nil {
		return "", errors.Join(err, linux.RemoveMapping(release.DataMapping))
	}
	return node, nil
}

func writeEmpty(node, file string) error {
	open, err := os.OpenFile(node, os.O_RDWR|unix.O_EXCL, 0)
	if err != nil {
		return err
	}
	return errors.Join(empty.Write(open, file), open.Close())
}

func (s *sealed) fields() map[string]any {
	return map[string]any{"public": s.Public, "private": s.Private, "pcrs": []int{secureBootPCR, closingPCR}}
}

// openMapping has the kernel show what a partition holds.
func openMapping(f *os.File, header *luks.Header, key []byte) (string, error) {
	size, err := linux.DeviceSize(f)
	if err != nil {
		return "", err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return "", err
	}
	device := fmt.Sprintf("%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
	return linux.CryptMapping{
		Name: release.DataMapping, Params: header.Table(key, device),
		Sectors: uint64(size-header.DataStart()) / luks.SectorSize * luks.SectorSize / 512,
	}.Create()
}

// Open has the TPM open the partition, and returns the open one's node. Either way the
// TPM gives the key to nobody before the machine starts again.
func Open(partition string) (node string, err error) {
	f, header, err := readHeader(partition)
	if err != nil {
		return "", err
	}
	defer f.Close()
	tpm, err := openTPM(tpmWait)
	if err != nil {
		return "", err
	}
	defer tpm.Close()
	key, err := keyByTPM(tpm, f, header)
	if err = errors.Join(err, closeKey(tpm)); err != nil {
		return "", err
	}
	return openMapping(f, header, key)
}

func readHeader(partition string) (*os.File, *luks.Header, error) {
	f, err := os.OpenFile(partition, os.O_RDWR, 0)
	if err != nil {
		return nil, nil, err
	}
	header, err := luks.Read(f)
	if err == nil && header.DataStart() != release.EncryptedStart {
		err = fmt.Errorf("its data begins at byte %d, want %d", header.DataStart(), release.EncryptedStart)
	}
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("%s: %w", partition, err), f.Close())
	}
	return f, header, nil
}

func keyByTPM(tpm transport.TPM, f *os.File, header *luks.Header) ([]byte, error) {
	raw, slots := header.Token(tpmToken)
	if raw == nil {
		return nil, errors.New("its LUKS header has no key that a TPM sealed")
	}
	var s sealed
	if err := json.Unmarshal(raw, &s); err != nil {
		return nil, fmt.Errorf("the sealed key in its LUKS header: %w", err)
	}
	secret, err := unseal(tpm, &s)
	if err != nil {
		return nil, err
	}
	return header.Unlock(f, secret, slots...)
}

// Close has the TPM give no key of a data partition away before the machine starts
// again: not even to a system with somebody else's data partition. It does nothing
// where there is no TPM, or one without a SHA-256 bank, which seals nothing.
func Close() error {
	tpm, err := openTPM(0)
	if errors.Is(err, attest.ErrNoTPM) {
		return nil
	}
	if err != nil {
		return err
	}
	err = closeKey(tpm)
	if errors.Is(err, attest.ErrNoTPM) {
		err = nil
	}
	return errors.Join(err, tpm.Close())
}

// Unlock takes the recovery key of a locked partition, and has the TPM seal another key
// for it, as the machine is started now. The partition opens at the next start.
func Unlock(partition, recovery string) error {
	f, header, err := readHeader(partition)
	if err != nil {
		return err
	}
	defer f.Close()
	_, slots := header.Token(recoveryToken)
	if len(slots) == 0 {
		return errdefs.ErrFailedPrecondition.WithMessage("this data partition has no recovery key: nobody made one with oscine recovery-key create")
	}
	key, err := header.Unlock(f, []byte(normalize(recovery)), slots...)
	if errors.Is(err, luks.ErrWrongKey) {
		return ErrRecoveryKey
	}
	if err != nil {
		return err
	}
	s, err := Seal()
	if err != nil {
		return fmt.Errorf("the recovery key is right, but this machine cannot keep the data partition open: %w: another Linux opens it with cryptsetup and this key", err)
	}
	return replaceKey(f, header, key, tpmToken, s.passphrase, s.sealed.fields())
}

// replaceKey makes a key slot for a passphrase in place of those of a kind of token.
func replaceKey(f luks.Device, header *luks.Header, key []byte, kind string, passphrase []byte, fields map[string]any) error {
	// A power failure may have left one copy of the header older than this one, and
	// naming a slot whose place is free in this one: it must not be what is left by
	// another failure, once the new slot lies there.
	if err := header.Write(f); err != nil {
		return err
	}
	_, old := header.Token(kind)
	slot, err := header.AddKey(f, passphrase, key)
	if err != nil {
		return err
	}
	if err := header.SetToken(kind, slot, fields); err != nil {
		return err
	}
	var erase []func(luks.Device) error
	for _, n := range old {
		erase = append(erase, header.RemoveKey(n))
	}
	if err := header.Write(f); err != nil {
		return err
	}
	for _, e := range erase {
		err = errors.Join(err, e(f))
	}
	return err
}

// NewRecoveryKey makes a recovery key for an open partition. The one before opens it no
// more.
func NewRecoveryKey(partition string) (string, error) {
	m, err := linux.ReadCryptMapping(release.DataMapping)
	if err != nil {
		return "", err
	}
	key, err := luks.KeyOf(m.Params)
	if err != nil {
		return "", err
	}
	f, header, err := readHeader(partition)
	if err != nil {
		return "", err
	}
	defer f.Close()
	recovery := newRecoveryKey()
	return recovery, replaceKey(f, header, key, recoveryToken, []byte(recovery), nil)
}

// HasRecoveryKey reports whether a partition has a recovery key.
func HasRecoveryKey(partition string) (bool, error) {
	f, header, err := readHeader(partition)
	if err != nil {
		return false, err
	}
	_, slots := header.Token(recoveryToken)
	return len(slots) > 0, f.Close()
}

// recoveryAlphabet has no letter that looks like a digit.
const recoveryAlphabet = "ABCDEFGHJKMNPQRSTVWXYZ0123456789"

// recoveryGroup is how many characters of a recovery key stand together.
const recoveryGroup = 5

// newRecoveryKey returns 200 bits in eight groups of five characters.
func newRecoveryKey() string {
	var raw [25]byte
	_, _ = rand.Read(raw[:]) // never fails, see crypto/rand
	return grouped(base32.NewEncoding(recoveryAlphabet).EncodeToString(raw[:]))
}

func grouped(text string) string {
	var groups []string
	for at := 0; at < len(text); at += recoveryGroup {
		groups = append(groups, text[at:min(at+recoveryGroup, len(text))])
	}
	return strings.Join(groups, "-")
}

// normalize is a recovery key as NewRecoveryKey writes it, of one that a person typed.
func normalize(typed string) string {
	letters := strings.Map(func(r rune) rune {
		if strings.ContainsRune(recoveryAlphabet, r) {
			return r
		}
		return -1
	}, strings.ToUpper(typed))
	return grouped(letters)
}
