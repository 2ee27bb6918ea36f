package cli

import (
	"errors"
	"fmt"
	"testing"

	"connectrpc.com/connect"
	"github.com/containerd/errdefs"

	"oscine.dev/oscine/internal/machine"
	"oscine.dev/oscine/internal/object"
)

func TestExitStatus(t *testing.T) {
	for _, c := range []struct {
		err  error
		want int
	}{
		{errors.New("disk gone"), 1},
		{object.Errors{{Reason: "wrong"}}, 2},
		{connect.NewError(connect.CodeInvalidArgument, errors.New("x")), 2},
		{machine.ErrNotFound, 3},
		{connect.NewError(connect.CodeNotFound, errors.New("x")), 3},
		{machine.ErrRunning, 4},
		{connect.NewError(connect.CodeFailedPrecondition, errors.New("x")), 4},
		{connect.NewError(connect.CodePermissionDenied, errors.New("x")), 5},
		{connect.NewError(connect.CodeResourceExhausted, errors.New("x")), 6},
		{errdefs.ErrUnavailable, 7},
		{connect.NewError(connect.CodeUnavailable, errors.New("x")), 7},
		{connect.NewError(connect.CodeUnknown, errors.New("x")), 1},
	} {
		if got := exitStatus(fmt.Errorf("get: %w", c.err)); got != c.want {
			t.Errorf("%v: got exit status %d, want %d", c.err, got, c.want)
		}
	}
}
