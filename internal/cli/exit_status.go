package cli

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"connectrpc.com/connect"
	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"
)

// The exit statuses beside 0, success. Scripts depend on them: they never change.
const (
	exitFailure     = 1
	exitUsage       = 2
	exitNotFound    = 3
	exitConflict    = 4
	exitDenied      = 5
	exitNoRoom      = 6
	exitUnavailable = 7
	exitInterrupted = 130
)

// statuses holds the exit status of each class of errors, whether the node or
// this command found it. The first class that an error belongs to decides.
var statuses = []struct {
	status  int
	meaning string
	is      func(error) bool
	codes   []connect.Code
	http    []int // as package front answers errors of the class
}{
	{exitUsage, "the command or the manifest is wrong", errdefs.IsInvalidArgument, []connect.Code{connect.CodeInvalidArgument, connect.CodeOutOfRange},
		[]int{http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType, http.StatusUnprocessableEntity}},
	{exitNotFound, "what was named does not exist", func(err error) bool { return errdefs.IsNotFound(err) || errors.Is(err, fs.ErrNotExist) },
		[]connect.Code{connect.CodeNotFound}, []int{http.StatusNotFound, http.StatusGone}},
	{exitConflict, "the present state forbids it; it may work later", func(err error) bool {
		return errdefs.IsFailedPrecondition(err) || errdefs.IsAlreadyExists(err) || errdefs.IsConflict(err) || errdefs.IsAborted(err)
	}, []connect.Code{connect.CodeFailedPrecondition, connect.CodeAlreadyExists, connect.CodeAborted}, []int{http.StatusConflict}},
	{exitDenied, "not allowed with these credentials", func(err error) bool { return errdefs.IsPermissionDenied(err) || errdefs.IsUnauthorized(err) },
		[]connect.Code{connect.CodePermissionDenied, connect.CodeUnauthenticated}, []int{http.StatusUnauthorized, http.StatusForbidden}},
	{exitNoRoom, "the node has no room for it", errdefs.IsResourceExhausted, []connect.Code{connect.CodeResourceExhausted},
		[]int{http.StatusTooManyRequests, http.StatusInsufficientStorage}},
	{exitUnavailable, "the node was not reached, or did not answer in time", func(err error) bool {
		return errdefs.IsUnavailable(err) || errdefs.IsDeadlineExceeded(err) || notReached(err)
	}, []connect.Code{connect.CodeUnavailable, connect.CodeDeadlineExceeded},
		[]int{http.StatusRequestTimeout, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout}},
}

// notReached reports that a request did not come to an answer. A server that is
// not trusted was reached.
func notReached(err error) bool {
	var request *url.Error
	var untrusted *tls.CertificateVerificationError
	return errors.As(err, &request) && request.Op != "parse" && !errors.As(err, &untrusted)
}

// answered is the HTTP status of the refusal that an error holds, 0 for none.
func answered(err error) int {
	var refusal interface{ HTTPStatus() int }
	if errors.As(err, &refusal) {
		return refusal.HTTPStatus()
	}
	return 0
}

// exitStatus returns the status that tells scripts the class of an error.
func exitStatus(err error) int {
	code := connect.CodeOf(err) // of the node's answer; CodeUnknown for an error of our own
	status := answered(err)
	for _, s := range statuses {
		if s.is(err) || slices.Contains(s.codes, code) || slices.Contains(s.http, status) {
			return s.status
		}
	}
	return exitFailure
}

func newExitStatusTopic() *cobra.Command {
	var text strings.Builder
	row := func(status int, meaning string) { fmt.Fprintf(&text, "  %-4d %s\n", status, meaning) }
	text.WriteString("Every command ends with one of these exit statuses:\n\n")
	row(0, "success")
	row(exitFailure, "failure of another kind")
	for _, s := range statuses {
		row(s.status, s.meaning)
	}
	row(exitInterrupted, "interrupted")
	text.WriteString("\nrun and exec end with the exit status of the program that ran on the node; place ends with 1 where nothing fits.")
	return &cobra.Command{Use: "exit-status", Short: "What the exit statuses mean", Long: text.String()}
}
