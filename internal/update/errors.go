package update

import (
	"fmt"

	"github.com/containerd/errdefs"

	"oscine.dev/oscine/internal/release"
)

// Reasons to refuse a release or its metadata.
var (
	// ErrManifest: the description of a release cannot be used.
	ErrManifest = errdefs.ErrInvalidArgument.WithMessage("the release's manifest is refused")
	// ErrSignature: fewer valid signatures than the trusted root asks for.
	ErrSignature = errdefs.ErrPermissionDenied.WithMessage("the release's metadata is not signed by enough trusted keys")
	// ErrExpired: root, targets or snapshot metadata is past its time.
	ErrExpired = errdefs.ErrFailedPrecondition.WithMessage("the release's metadata has expired")
	// ErrFrozen: the timestamp is past its time. Somebody keeps newer metadata
	// back, or the publisher stopped signing.
	ErrFrozen = errdefs.ErrFailedPrecondition.WithMessage("the release folder is frozen: its timestamp has expired")
	// ErrRollback: metadata older than what this node has seen.
	ErrRollback = errdefs.ErrFailedPrecondition.WithMessage("the release's metadata was rolled back to an older one")
	// ErrMixed: metadata of different states of the release folder.
	ErrMixed = errdefs.ErrFailedPrecondition.WithMessage("the release's metadata is mixed from different publications")
	// ErrTooLong: more data than the metadata allows.
	ErrTooLong = errdefs.ErrDataLoss.WithMessage("the source sends more data than was signed for")
	// ErrDamaged: data differs from what was signed.
	ErrDamaged = errdefs.ErrDataLoss.WithMessage("what was fetched is damaged or was changed")
	// ErrPeer: what a peer sent is not what was signed. The peer is not asked again by
	// the same [Source]: the caller removes what came and tries again.
	ErrPeer = errdefs.ErrDataLoss.WithMessage("a peer sent something else than was signed")
	// ErrBusy: a peer is downloading the file itself, or sends to many others.
	ErrBusy = errdefs.ErrUnavailable.WithMessage("the server is busy")
	// ErrNotKept: a [Cache] does not take the file.
	ErrNotKept = errdefs.ErrResourceExhausted.WithMessage("the file is not kept for peers")
	// ErrUnreachable: the source cannot be read now.
	ErrUnreachable = errdefs.ErrUnavailable.WithMessage("the source of releases cannot be read")
	// ErrNotOffered: the source has no release like the one asked for.
	ErrNotOffered = errdefs.ErrNotFound.WithMessage("no such release is offered")
	// ErrWrongMachine: the release is for another architecture or kernel.
	ErrWrongMachine = errdefs.ErrFailedPrecondition.WithMessage("the release is for another machine")
	// ErrTooOld: the release is below the node's version floor.
	ErrTooOld = errdefs.ErrFailedPrecondition.WithMessage("the release is older than this node accepts")
	// ErrSkips: the running version is too old to go to the release at once.
	ErrSkips = errdefs.ErrFailedPrecondition.WithMessage("the release cannot be installed directly from this version")
)

// Allowed reports why a node must not go to the release: it is for another
// architecture or kernel flavour (ErrWrongMachine), older than the node's
// version floor, which may be empty (ErrTooOld), or too far from the running
// version (ErrSkips).
func (m *Manifest) Allowed(arch, flavour, running, floor string) error {
	switch {
	case m.Arch != arch || m.Flavour != flavour:
		return fmt.Errorf("%w: it is for %s with the kernel %s, this node is %s with %s", ErrWrongMachine, m.Arch, m.Flavour, arch, flavour)
	case floor != "" && release.CompareVersions(m.Version, floor) < 0:
		return fmt.Errorf("%w: it is %s, and %s or later is accepted", ErrTooOld, m.Version, floor)
	case m.MinVersion != "" && release.CompareVersions(running, m.MinVersion) < 0:
		return fmt.Errorf("%w: %s needs %s or later, this node runs %s: upgrade to a release in between first", ErrSkips, m.Version, m.MinVersion, running)
	}
	return nil
}
