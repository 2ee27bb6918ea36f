package network

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// UnsupportedError says that this kernel or process lacks something that the
// workload network stands on.
type UnsupportedError struct {
	Capability string // such as "nf_tables", a name that oscine doctor lists
	Doing      string
	Err        error
}

// Error names the missing capability and the next step.
func (e *UnsupportedError) Error() string {
	return fmt.Sprintf("%s: this kernel has no %s (%v); see oscine doctor for how to get it", e.Doing, e.Capability, e.Err)
}

// Unwrap returns the kernel's error.
func (e *UnsupportedError) Unwrap() error { return e.Err }

// ErrPermission is returned where the daemon may not change the network.
var ErrPermission = errors.New("needs root (CAP_NET_ADMIN and CAP_SYS_ADMIN): start oscined as root")

// explain turns the kernel's refusals into what a person can act on.
func explain(err error, capability, doing string) error {
	missing := []error{unix.EOPNOTSUPP, unix.EPROTONOSUPPORT, unix.EAFNOSUPPORT, unix.ENOSYS, unix.ENOENT, unix.ENODEV}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return fmt.Errorf("%s: %w (%w)", doing, ErrPermission, err)
	case slices.ContainsFunc(missing, func(m error) bool { return errors.Is(err, m) }):
		return &UnsupportedError{Capability: capability, Doing: doing, Err: err}
	default:
		return fmt.Errorf("%s: %w", doing, err)
	}
}
