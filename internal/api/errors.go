package api

import (
	"context"
	"errors"

	"connectrpc.com/connect"
	"github.com/containerd/errdefs"
)

// codes holds the code of each class of errors. The first class that an error
// belongs to decides.
var codes = []struct {
	is   func(error) bool
	code connect.Code
}{
	{errdefs.IsInvalidArgument, connect.CodeInvalidArgument},
	{errdefs.IsNotFound, connect.CodeNotFound},
	{errdefs.IsAlreadyExists, connect.CodeAlreadyExists},
	{errdefs.IsPermissionDenied, connect.CodePermissionDenied},
	{errdefs.IsUnauthorized, connect.CodeUnauthenticated},
	{errdefs.IsResourceExhausted, connect.CodeResourceExhausted},
	{errdefs.IsConflict, connect.CodeFailedPrecondition},
	{errdefs.IsFailedPrecondition, connect.CodeFailedPrecondition},
	{errdefs.IsAborted, connect.CodeAborted},
	{errdefs.IsOutOfRange, connect.CodeOutOfRange},
	{errdefs.IsNotImplemented, connect.CodeUnimplemented},
	{errdefs.IsUnavailable, connect.CodeUnavailable},
	{errdefs.IsDataLoss, connect.CodeDataLoss},
	{errdefs.IsInternal, connect.CodeInternal},
	{errdefs.IsDeadlineExceeded, connect.CodeDeadlineExceeded},
	{errdefs.IsCanceled, connect.CodeCanceled},
}

// coded gives an error the Connect code of its class; see
// github.com/containerd/errdefs. An error that has a code already keeps it.
func coded(err error) error {
	if err == nil {
		return nil
	}
	var already *connect.Error
	if errors.As(err, &already) {
		return err
	}
	for _, class := range codes {
		if class.is(err) {
			return connect.NewError(class.code, err)
		}
	}
	return connect.NewError(connect.CodeUnknown, err)
}

// coder gives the errors of all calls their codes.
type coder struct{}

func (coder) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		resp, err := next(ctx, req)
		return resp, coded(err)
	}
}

func (coder) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

func (coder) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		return coded(next(ctx, conn))
	}
}
