package bucket

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"oscine.dev/oscine/internal/bounded"
	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/serve/bundle"
	"oscine.dev/oscine/internal/signature"
)

const (
	// MaxBytes bounds all files of one model.
	MaxBytes = 64 << 30
	// maxList bounds one page of a listing, of at most 1,000 keys of 1,024 bytes.
	maxList = 16 << 20
	// answerTime is how long a server may take to tell what there is, with retries.
	answerTime = time.Minute
	// stallTime is how long a download may bring nothing before it is taken for cut.
	stallTime = time.Minute
	// maxNear is how many names an error lists at most.
	maxNear = 5
)

// aws is AWS's endpoint; the client finds that of the region.
const aws = "https://s3.amazonaws.com"

// Access says how a bucket is reached.
type Access struct {
	object.S3
	// Credentials; without AccessKeyID the server is asked without any.
	AccessKeyID, SecretAccessKey, SessionToken string
}

// Model is a model in a bucket.
type Model struct {
	Source object.S3Source
	// Version tells the content of its objects from any other, in the form of a
	// digest: it follows from their names, sizes and ETags.
	Version   string
	Format    string // ending of the file's name where it is one, such as .onnx
	SizeBytes int64  // of what is downloaded

	reach   *reach
	objects []item
	stall   time.Duration
}

// item is an object that is a file of the model.
type item struct {
	key, etag string
	name      string // in the model
	size      int64  // bytes
}

// reach is a server as it is asked for one source.
type reach struct {
	client *minio.Client
	access Access
	source object.S3Source
	host   string
}

// Find asks what a source is: the file of its key, or the folder of all objects
// below it. Hidden files are left out, as in a folder that is uploaded. It returns ErrNotFound
// where there is neither.
func Find(ctx context.Context, source object.S3Source, access Access) (*Model, error) {
	r, err := open(source, access)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	items, err := r.find(ctx)
	if err != nil {
		return nil, r.explain(ctx, err)
	}
	m := &Model{Source: source, reach: r, objects: items, stall: stallTime}
	version := sha256.New()
	fmt.Fprintf(version, "%q %q\n", r.access.Endpoint, source.Bucket)
	for _, o := range items {
		fmt.Fprintf(version, "%q %q %d\n", o.key, o.etag, o.size)
		if m.SizeBytes += o.size; o.size > MaxBytes || m.SizeBytes > MaxBytes {
			return nil, fmt.Errorf("%w: the model %s is larger than %d bytes", ErrModel, source, int64(MaxBytes))
		}
	}
	m.Version = "sha256:" + hex.EncodeToString(version.Sum(nil))
	if m.isFile() {
		m.Format = strings.ToLower(path.Ext(items[0].name))
	}
	return m, nil
}

// isFile reports whether the model is a file, not a folder.
func (m *Model) isFile() bool {
	return len(m.objects) == 1 && !strings.Contains(m.objects[0].name, "/")
}

func open(source object.S3Source, access Access) (*reach, error) {
	u, err := url.Parse(cmp.Or(access.Endpoint, aws))
	if err != nil || u.Host == "" {
		return nil, fmt.Errorf("%w: the endpoint %.300q is no URL of a server", ErrModel, access.Endpoint)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.ResponseHeaderTimeout = answerTime
	transport.DisableCompression = true // the bytes of a range are those of the object
	options := &minio.Options{
		Creds:      credentials.NewStatic("", "", "", credentials.SignatureAnonymous),
		Secure:     u.Scheme == "https",
		Region:     access.Region,
		Transport:  &bounds{transport},
		MaxRetries: bounded.Attempts,
	}
	if access.AccessKeyID != "" {
		options.Creds = credentials.NewStaticV4(access.AccessKeyID, access.SecretAccessKey, access.SessionToken)
	}
	if access.PathStyle != nil {
		options.BucketLookup = minio.BucketLookupDNS
		if *access.PathStyle {
			options.BucketLookup = minio.BucketLookupPath
		}
	}
	client, err := minio.New(u.Host, options)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %v", ErrModel, source, err)
	}
	client.SetAppInfo("oscine", "1")
	return &reach{client: client, access: access, source: source, host: u.Host}, nil
}

// Signature reads the signature of a source that is one file, the object whose key ends in
// .sig in addition. It returns nil where there is none.
func Signature(ctx context.Context, source object.S3Source, access Access) ([]byte, error) {
	source.Key += signature.Suffix
	r, err := open(source, access)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	core := minio.Core{Client: r.client}
	body, _, _, err := core.GetObject(ctx, source.Bucket, source.Key, minio.GetObjectOptions{})
	if code(err) == minio.NoSuchKey {
		return nil, nil
	}
	if err != nil {
		return nil, r.explain(ctx, err)
	}
	raw, err := bounded.ReadAll(body, signature.MaxBytes)
	if errors.Is(err, bounded.ErrTooLarge) {
		err = fmt.Errorf("%w: the signature %s: %w", ErrModel, source, err)
	}
	return raw, r.explain(ctx, errors.Join(err, body.Close()))
}

// find finds the objects of the source, in the order of their names.
func (r *reach) find(ctx context.Context) ([]item, error) {
	key := r.source.Key
	if !strings.HasSuffix(key, "/") {
		first, err := r.list(ctx, key, 1)
		if code(err) == minio.AccessDenied { // who may read a file may not be allowed to list the bucket
			info, e := r.client.StatObject(ctx, r.source.Bucket, key, minio.StatObjectOptions{})
			if e != nil {
				return nil, err // tells more
			}
			first, err = []minio.ObjectInfo{info}, nil
		}
		if err != nil {
			return nil, err
		}
		if len(first) == 1 && first[0].Key == key {
			o, err := r.item(first[0], path.Base(key))
			return []item{o}, err
		}
		key += "/"
	}
	all, err := r.list(ctx, key, bundle.MaxFiles+1)
	if err != nil {
		return nil, err
	}
	if len(all) > bundle.MaxFiles {
		return nil, fmt.Errorf("%w: %s has more than %d objects", ErrModel, r.source, bundle.MaxFiles)
	}
	var items []item
	for _, o := range all {
		name, ok := strings.CutPrefix(o.Key, key)
		if !ok || name == "" || strings.HasSuffix(name, "/") || strings.HasPrefix(name, ".") || strings.Contains(name, "/.") {
			continue // what some tools put in the place of a folder, and hidden files
		}
		file, err := r.item(o, name)
		if err != nil {
			return nil, err
		}
		items = append(items, file)
	}
	if len(items) == 0 {
		return nil, r.missing(ctx)
	}
	slices.SortFunc(items, func(a, b item) int { return strings.Compare(a.name, b.name) })
	return items, nil
}

// item is an object as a file of that name. Without an ETag nothing would tell one
// content from another of the same length.
func (r *reach) item(o minio.ObjectInfo, name string) (item, error) {
	err := bundle.CheckName(name)
	switch {
	case err != nil:
	case o.Size < 0:
		err = fmt.Errorf("the server says that %.300q has %d bytes", o.Key, o.Size)
	case o.ETag == "":
		err = fmt.Errorf("the server names no ETag of %.300q, by which a change would be noticed", o.Key)
	default:
		return item{o.Key, o.ETag, name, o.Size}, nil
	}
	return item{}, fmt.Errorf("%w: %s: %w", ErrModel, r.source, err)
}

// list lists at most so many objects whose keys begin with prefix.
func (r *reach) list(ctx context.Context, prefix string, most int) ([]minio.ObjectInfo, error) {
	return r.listed(ctx, minio.ListObjectsOptions{Prefix: prefix, Recursive: true, MaxKeys: min(most, 1000), FetchOwner: new(bool)}, most)
}

func (r *reach) listed(ctx context.Context, options minio.ListObjectsOptions, most int) ([]minio.ObjectInfo, error) {
	var list []minio.ObjectInfo
	for o := range r.client.ListObjectsIter(ctx, r.source.Bucket, options) {
		if o.Err != nil {
			return nil, o.Err
		}
		if list = append(list, o); len(list) == most {
			break
		}
	}
	return list, ctx.Err()
}

// missing says that the source is not there, and what is.
func (r *reach) missing(ctx context.Context) error {
	folder, name := path.Split(strings.TrimSuffix(r.source.Key, "/"))
	err := fmt.Errorf("%w: %s has no %s, as a file or folder", ErrNotFound, r.host, r.source)
	there, failed := r.listed(ctx, minio.ListObjectsOptions{Prefix: folder, MaxKeys: 1000, FetchOwner: new(bool)}, 1000)
	if failed != nil || len(there) == 0 {
		return fmt.Errorf("%w: nothing that may be listed is in %s", err, (object.S3Source{Bucket: r.source.Bucket, Key: folder}))
	}
	names := make([]string, len(there))
	for i, o := range there {
		names[i] = strings.TrimPrefix(o.Key, folder)
	}
	slices.SortStableFunc(names, func(a, b string) int {
		return cmp.Compare(object.EditDistance(strings.TrimSuffix(a, "/"), name), object.EditDistance(strings.TrimSuffix(b, "/"), name))
	})
	more := ""
	if len(names) > maxNear {
		names, more = names[:maxNear], " and others"
	}
	return fmt.Errorf("%w: there are %.800q%s", err, names, more)
}

// bounds bounds what a server sends but for the content of objects, which those who
// read it bound.
type bounds struct{ next http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (b *bounds) RoundTrip(q *http.Request) (*http.Response, error) {
	resp, err := b.next.RoundTrip(q)
	if err == nil && (resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusPartialContent || len(q.URL.Query()) > 0) {
		resp.Body = &boundedBody{resp.Body, maxList}
	}
	return resp, err
}

type boundedBody struct {
	io.ReadCloser
	left int64
}

func (b *boundedBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, fmt.Errorf("%w: the server sent a listing of more than %d bytes", ErrModel, int64(maxList))
	}
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}

// code is the server's code for an error, "" where it has none.
func code(err error) string {
	var answer minio.ErrorResponse
	if errors.As(err, &answer) {
		return answer.Code
	}
	return ""
}
