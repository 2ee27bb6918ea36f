package node

import (
	"fmt"

	"github.com/containerd/errdefs"

	"oscine.dev/oscine/internal/encryption"
	"oscine.dev/oscine/internal/linux"
	"oscine.dev/oscine/internal/release"
)

// Encryption is how the data partition is encrypted.
type Encryption struct {
	RecoveryKey bool // whether one was made
}

// errNotEncrypted refuses a recovery key.
var errNotEncrypted = errdefs.ErrFailedPrecondition.WithMessage("this node's data partition is not encrypted: it is where spec.storage.encryption of its first Machine says tpm (docs/trust.md)")

// encryptedData is the node of the data partition below the mapping; false where it is
// not encrypted.
func (n *Node) encryptedData() (string, bool) {
	if n.config.Upgrading.Facts == nil {
		return "", false
	}
	m, ok := linux.MappingUnder(n.config.StateDir)
	return "/dev/" + n.config.Upgrading.Facts().Data, ok && m.Name == release.DataMapping
}

func (n *Node) encryption() *Encryption {
	partition, ok := n.encryptedData()
	if !ok {
		return nil
	}
	n.sealing.Lock()
	defer n.sealing.Unlock()
	has, err := encryption.HasRecoveryKey(partition)
	if err != nil {
		n.log.Error("read the header of the data partition", "error", err)
	}
	return &Encryption{RecoveryKey: has}
}

// CreateRecoveryKey makes a recovery key for the data partition; the one before is
// worth nothing from then on. The node keeps no copy of it.
func (n *Node) CreateRecoveryKey(by string) (string, error) {
	partition, ok := n.encryptedData()
	if !ok {
		return "", errNotEncrypted
	}
	n.sealing.Lock()
	defer n.sealing.Unlock()
	key, err := encryption.NewRecoveryKey(partition)
	if err != nil {
		return "", fmt.Errorf("make a recovery key: %w", err)
	}
	n.noteAccess("RecoveryKeyCreated", fmt.Sprintf("%q made a recovery key for the data partition; one from before is worth nothing", by))
	return key, nil
}
