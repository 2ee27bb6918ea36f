package bucket

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/minio/minio-go/v7"

	"oscine.dev/oscine/internal/object"
)

// Errors that a caller can act on; all have a class of github.com/containerd/errdefs.
var (
	// ErrNotFound means that there is no such bucket or model.
	ErrNotFound = errdefs.ErrNotFound.WithMessage("model not found")
	// ErrUnreachable means that the server did not answer, or not to the end. The same
	// download goes on where it ended.
	ErrUnreachable = errdefs.ErrUnavailable.WithMessage("S3 server unreachable")
	// ErrDenied means that the server wants other credentials.
	ErrDenied = errdefs.ErrPermissionDenied.WithMessage("S3 server denied access")
	// ErrServer means that the server cannot be asked as the Model says.
	ErrServer = errdefs.ErrFailedPrecondition.WithMessage("S3 server refused")
	// ErrDigest means that the model does not have the digest that its source says.
	ErrDigest = errdefs.ErrDataLoss.WithMessage("model does not have its digest")
	// ErrModel means that what is there is no model, or is out of bounds.
	ErrModel = errdefs.ErrInvalidArgument.WithMessage("not a model")
)

// explain gives an error its reason and the next step.
func (r *reach) explain(ctx context.Context, err error) error {
	var answer minio.ErrorResponse
	var network net.Error
	var certificate *tls.CertificateVerificationError
	for _, own := range []error{ErrNotFound, ErrUnreachable, ErrDenied, ErrServer, ErrDigest, ErrModel} {
		if errors.Is(err, own) {
			return err
		}
	}
	switch {
	case err == nil, errors.Is(err, context.Canceled):
		return err
	case errors.As(err, &answer):
		return r.explainAnswer(answer)
	case errors.As(err, &certificate):
		return fmt.Errorf("%w: the certificate of %s is not trusted: %w: add its authority to those of the system", ErrServer, r.host, certificate.Err)
	case strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		return fmt.Errorf("%w: %s speaks plain HTTP, which anyone on the way can read and change: where you trust the network, write the endpoint with http://", ErrServer, r.host)
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return fmt.Errorf("%w: %s gave no answer in time", ErrUnreachable, r.host)
	case errors.As(err, &network):
		var request *url.Error
		if errors.As(err, &request) { // its URL may be a long one
			err = request.Err
		}
		return fmt.Errorf("%w: %s: %w: is the endpoint right, and the network there?", ErrUnreachable, r.host, err)
	}
	return fmt.Errorf("%s: %w", r.source, err)
}

func (r *reach) explainAnswer(a minio.ErrorResponse) error {
	said := fmt.Sprintf("%s answered %.100s", r.host, a.Code)
	if a.Region != "" && a.Region != r.access.Region && (a.Code == minio.AuthorizationHeaderMalformed || a.Code == minio.InvalidRegion || a.Code == "IllegalLocationConstraintException" || a.StatusCode/100 == 3) {
		return fmt.Errorf("%w: the bucket %s is in the region %.63s, not %s: set the region %[3]s", ErrServer, r.source.Bucket, a.Region, cmp.Or(r.access.Region, "the default one"))
	}
	switch a.Code {
	case minio.NoSuchBucket:
		return fmt.Errorf("%w: %s has no bucket %s: is the endpoint right?", ErrNotFound, r.host, r.source.Bucket)
	case minio.NoSuchKey:
		return fmt.Errorf("%w: %s has no %s any more", ErrNotFound, r.host, r.source)
	case "InvalidAccessKeyId":
		return fmt.Errorf("%w: %s does not know the %s of Secret/%s: replace it with oscine secret set %[4]s", ErrDenied, r.host, object.S3AccessKeyID, r.access.Secret)
	case "SignatureDoesNotMatch":
		return fmt.Errorf("%w: the %s of Secret/%s does not belong to its %s, says %s: replace it with oscine secret set %[3]s", ErrDenied, object.S3SecretAccessKey, r.access.Secret, object.S3AccessKeyID, r.host)
	case "ExpiredToken", "ExpiredTokenException", "InvalidToken":
		return fmt.Errorf("%w: the temporary credentials of Secret/%s have expired, says %s: replace them with oscine secret set %[2]s", ErrDenied, r.access.Secret, r.host)
	case "RequestTimeTooSkewed":
		return fmt.Errorf("%w: the clocks of %s and of this node differ: is the node's time right?", ErrServer, r.host)
	case minio.AuthorizationHeaderMalformed, minio.InvalidRegion:
		return fmt.Errorf("%w: %s: the region %s is not that of the bucket %s (%.300s): set the right one", ErrServer, said, cmp.Or(r.access.Region, "that the server named"), r.source.Bucket, a.Message)
	case minio.PreconditionFailed:
		return fmt.Errorf("%w: %s changed while it was fetched: try again", ErrServer, r.source)
	}
	switch status := a.StatusCode; {
	case status == http.StatusForbidden, status == http.StatusUnauthorized:
		return fmt.Errorf("%w: %s for %s with %s", ErrDenied, said, r.source, r.credentials())
	case status/100 == 3:
		return fmt.Errorf("%w: %s for %s and redirects, which is not followed, for credentials would go along: name the server that has the bucket as endpoint, and its region", ErrServer, said, r.source)
	case status == http.StatusNotFound:
		return fmt.Errorf("%w: %s for %s (%.300s): is the endpoint that of an S3 server?", ErrNotFound, said, r.source, a.Message)
	case status == http.StatusTooManyRequests, status >= 500:
		return fmt.Errorf("%w: %s (%.300s): try again later", ErrUnreachable, said, a.Message)
	}
	return fmt.Errorf("%w: %s for %s (%.300s)", ErrServer, said, r.source, a.Message)
}

// credentials says what the server was asked with, and what would help.
func (r *reach) credentials() string {
	if r.access.AccessKeyID == "" {
		return fmt.Sprintf("no credentials: name a Secret that has some (oscine secret set NAME %s=… --from-stdin %s, then spec.s3.secret or --s3-secret), or make the bucket public", object.S3AccessKeyID, object.S3SecretAccessKey)
	}
	return fmt.Sprintf("the credentials of Secret/%s: they must allow s3:GetObject, and for a folder s3:ListBucket", r.access.Secret)
}
