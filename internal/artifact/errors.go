package artifact

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"syscall"

	"github.com/containerd/errdefs"
	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/errcode"
)

// Errors that a caller can act on; all have a class of
// github.com/containerd/errdefs.
var (
	// ErrNotFound means that there is no artifact of that name.
	ErrNotFound = errdefs.ErrNotFound.WithMessage("artifact not found")
	// ErrUnreachable means that the registry did not answer, or not to the end. The
	// same download goes on where it ended.
	ErrUnreachable = errdefs.ErrUnavailable.WithMessage("registry unreachable")
	// ErrDenied means that the registry wants other credentials.
	ErrDenied = errdefs.ErrPermissionDenied.WithMessage("registry denied access")
	// ErrCertificate means that a registry could not prove that it is the one that was asked.
	ErrCertificate = errdefs.ErrFailedPrecondition.WithMessage("registry not trusted")
	// ErrDigest means that what came is not what its digest says.
	ErrDigest = errdefs.ErrDataLoss.WithMessage("content does not have its digest")
	// ErrManifest means that what a reference names is no artifact of the kind that was asked for.
	ErrManifest = errdefs.ErrInvalidArgument.WithMessage("not such an artifact")
)

// explain gives an error its reason and the next step.
func (s *Store) explain(err error) error {
	var answer *errcode.ErrorResponse
	var network net.Error
	var certificate *tls.CertificateVerificationError
	switch {
	case err == nil, errors.Is(err, context.Canceled), errdefs.IsInvalidArgument(err), errdefs.IsDataLoss(err),
		errors.Is(err, ErrNotFound), errors.Is(err, ErrUnreachable), errors.Is(err, ErrDenied), errors.Is(err, ErrCertificate):
		return err
	case errors.As(err, &answer):
		return s.explainAnswer(answer)
	case errors.Is(err, auth.ErrBasicCredentialNotFound):
		return fmt.Errorf("%w: %s: %s", ErrDenied, s.ref, s.signIn())
	case errors.Is(err, errdef.ErrNotFound):
		return fmt.Errorf("%w: %s", ErrNotFound, s.ref)
	case strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		return fmt.Errorf("%w: %s speaks plain HTTP, which anyone on the way can read and change: allow it with --plain-http where you trust the network", ErrUnreachable, s.ref.Host())
	case errors.Is(err, syscall.ENOSPC), s.ref.Local():
		return fmt.Errorf("%s: %w", s.ref, err)
	case errors.As(err, &certificate):
		return fmt.Errorf("%w: %s: its certificate is not trusted: %w: add its authority to those of the system", ErrCertificate, s.ref.Host(), certificate.Err)
	case errors.As(err, &network):
		return fmt.Errorf("%w: %s: %w: is its name right, and the network there?", ErrUnreachable, s.ref.Host(), err)
	}
	return fmt.Errorf("%s: %w", s.ref, err)
}

func (s *Store) explainAnswer(answer *errcode.ErrorResponse) error {
	said := ""
	if len(answer.Errors) > 0 {
		said = fmt.Sprintf(" (%.300s)", answer.Errors.Error())
	}
	switch code := answer.StatusCode; {
	case code == http.StatusUnauthorized, code == http.StatusForbidden:
		return fmt.Errorf("%w: %s%s: %s", ErrDenied, s.ref, said, s.signIn())
	case code == http.StatusNotFound:
		return fmt.Errorf("%w: %s%s", ErrNotFound, s.ref, said)
	case code == http.StatusTooManyRequests, code >= 500:
		return fmt.Errorf("%w: %s answered %d%s: try again later", ErrUnreachable, s.ref.Host(), code, said)
	default:
		return fmt.Errorf("%s: the registry answered %d%s", s.ref, code, said)
	}
}

func (s *Store) signIn() string {
	if s.access.SignIn == "" {
		return "it wants credentials"
	}
	return "it wants other credentials, or has no such repository: give it credentials with " + fmt.Sprintf(s.access.SignIn, s.ref.Host())
}
