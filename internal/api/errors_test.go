package api

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"connectrpc.com/connect"
	"github.com/containerd/errdefs"

	"oscine.dev/oscine/internal/container"
	"oscine.dev/oscine/internal/isolate"
	"oscine.dev/oscine/internal/node"
	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/pack"
)

func TestCodes(t *testing.T) {
	for _, c := range []struct {
		err  error
		want connect.Code
	}{
		{object.Errors{{Reason: "wrong"}}, connect.CodeInvalidArgument},
		{node.ErrInvalid, connect.CodeInvalidArgument},
		{node.ErrNotFound, connect.CodeNotFound},
		{node.ErrConflict, connect.CodeFailedPrecondition},
		{container.ErrNotFound, connect.CodeNotFound},
		{container.ErrNotRunning, connect.CodeFailedPrecondition},
		{container.ErrDenied, connect.CodePermissionDenied},
		{container.ErrTooLarge, connect.CodeInvalidArgument},
		{isolate.ErrOverCommitted, connect.CodeResourceExhausted},
		{pack.ErrNotInstalled, connect.CodeNotFound},
		{pack.ErrNotPack, connect.CodeInvalidArgument},
		{pack.ErrDamaged, connect.CodeDataLoss},
		{errdefs.ErrUnavailable, connect.CodeUnavailable},
		{context.Canceled, connect.CodeCanceled},
		{context.DeadlineExceeded, connect.CodeDeadlineExceeded},
		{errors.New("disk gone"), connect.CodeUnknown},
		{connect.NewError(connect.CodeAborted, errors.New("x")), connect.CodeAborted},
	} {
		err := coded(fmt.Errorf("apply: %w", c.err))
		if got := connect.CodeOf(err); got != c.want {
			t.Errorf("%v: got code %v, want %v", c.err, got, c.want)
		}
		if !errors.Is(err, c.err) && !errors.As(err, new(object.Errors)) {
			t.Errorf("%v is lost in %v", c.err, err)
		}
	}
	if coded(nil) != nil {
		t.Error("no error got a code")
	}
}
