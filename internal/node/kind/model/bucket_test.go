package model

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/serve/bucket"
	"oscine.dev/oscine/internal/serve/bucket/buckettest"
)

func TestPullBucket(t *testing.T) {
	b := newBench(t)
	s := buckettest.StartPublic(t)
	s.Put(map[string]string{"net.onnx": "graph", "m/net.onnx": "graph", "m/weights": "w"})
	access := bucket.Access{S3: object.S3{Endpoint: s.URL}}
	pull := func(source string) *Pulled {
		t.Helper()
		p, err := b.files.PullBucket(t.Context(), source, access, untold)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	const file = "s3://" + buckettest.Bucket + "/net.onnx"
	p := pull(file)
	id := access.SourceID(file)
	if p.Reference != file+"@"+p.Digest || p.Format != ".onnx" || p.SizeBytes != 5 || b.files.Digest(id) != p.Digest || b.files.Format(p.Digest) != ".onnx" {
		t.Errorf("got %+v, the source leads to %q", p, b.files.Digest(id))
	}
	// The same file is the same model, wherever it comes from.
	digest, _, err := b.files.Upload(t.Context(), strings.NewReader("graph"), Upload{})
	if err != nil || digest != p.Digest {
		t.Errorf("uploaded it has the digest %s, %v", digest, err)
	}
	folder := pull("s3://" + buckettest.Bucket + "/m")
	if text, err := os.ReadFile(filepath.Join(b.files.Path(folder.Digest), "weights")); err != nil || string(text) != "w" || folder.Format != "" {
		t.Errorf("a folder: %+v, %q, %v", folder, text, err)
	}
	// What did not change is not fetched again; what is pinned is not even asked for.
	s.Asked()
	if again := pull(file); again.Digest != p.Digest || strings.Contains(strings.Join(s.Asked(), "\n"), "bytes=") {
		t.Errorf("again: %+v", again)
	}
	if again := pull(p.Reference); again.Digest != p.Digest || len(s.Asked()) > 0 {
		t.Errorf("pinned: %+v", again)
	}
	// Another server is another source.
	other := buckettest.StartPublic(t)
	other.Put(map[string]string{"net.onnx": "other"})
	if p, err := b.files.PullBucket(t.Context(), file, bucket.Access{S3: object.S3{Endpoint: other.URL}}, untold); err != nil || p.Digest == digest {
		t.Errorf("of another server: %+v, %v", p, err)
	}
	s.Put(map[string]string{"net.onnx": "graph 2"})
	second := pull(file)
	if second.Digest == p.Digest {
		t.Errorf("what changed: %+v", second)
	}
	// Offline the last one is taken; a refusal is no reason for that.
	access.Endpoint = s.URL
	old := time.Now().Add(-2 * unreferenced)
	entries, err := os.ReadDir(b.files.dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if err := os.Chtimes(filepath.Join(b.files.dir, e.Name()), old, old); err != nil {
			t.Fatal(err)
		}
	}
	b.files.Sweep(map[string]bool{id: true})
	if !b.files.Has(second.Digest) || b.files.Has(p.Digest) || b.files.Digest(id) != second.Digest {
		t.Errorf("swept: the second is there: %v, the first: %v", b.files.Has(second.Digest), b.files.Has(p.Digest))
	}
	s.Remove("net.onnx")
	if _, err := b.files.PullBucket(t.Context(), file, access, untold); !errors.Is(err, bucket.ErrNotFound) {
		t.Errorf("what was removed: %v", err)
	}
}

func TestPullBucketOffline(t *testing.T) {
	b := newBench(t)
	s := buckettest.StartPublic(t)
	s.Put(map[string]string{"net.onnx": strings.Repeat("graph", 100_000)})
	access := bucket.Access{S3: object.S3{Endpoint: s.URL}}
	const file = "s3://" + buckettest.Bucket + "/net.onnx"
	full := errors.New("the disk is full")
	b.files.room = func() error { return full }
	if _, err := b.files.PullBucket(t.Context(), file, access, untold); !errors.Is(err, full) {
		t.Errorf("a full disk: %v", err)
	}
	b.files.room = func() error { return nil }
	if left, err := os.ReadDir(b.files.dir); err != nil || len(left) > 0 {
		t.Errorf("a full disk leaves %v, %v", left, err)
	}
	p, err := b.files.PullBucket(t.Context(), file, access, untold)
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	if last, err := b.files.PullBucket(t.Context(), file, access, untold); err != nil || last.Digest != p.Digest {
		t.Errorf("offline: %+v, %v", last, err)
	}
	if _, err := b.files.PullBucket(t.Context(), file+".2", access, untold); !errors.Is(err, bucket.ErrUnreachable) {
		t.Errorf("offline, another model: %v", err)
	}
}

// A Model whose source is in a bucket is pulled with its Secret's credentials.
func TestModelFromABucket(t *testing.T) {
	b := newBench(t)
	s := buckettest.Start(t)
	s.Put(map[string]string{"net.onnx": "graph"})
	waits := errors.New("waits for Secret/minio")
	b.options.Bucket = func(at *object.S3) (bucket.Access, error) { return bucket.Access{S3: *at}, waits }
	m := b.upload(t, "uploaded")
	m.Spec.Source, m.Spec.S3 = "s3://"+buckettest.Bucket+"/net.onnx", &object.S3{Endpoint: s.URL, Secret: "minio"}
	if err := b.c.Up(t.Context(), m); !errors.Is(err, waits) {
		t.Errorf("without its Secret: %v", err)
	}
	b.options.Bucket = func(at *object.S3) (bucket.Access, error) {
		return bucket.Access{S3: *at, AccessKeyID: buckettest.AccessKeyID, SecretAccessKey: buckettest.SecretAccessKey}, nil
	}
	if err := b.c.Up(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	if b.chosen.Suffix != ".onnx" || string(b.chosen.Head) != "graph" {
		t.Errorf("the engine was chosen by %+v", b.chosen)
	}
	st := b.c.Status(object.Observed{}).(*object.ModelStatus)
	if st.Source != m.Spec.Source || st.Digest != b.files.Digest(m.SourceID()) || st.Digest == "" {
		t.Errorf("the status has the source %s and the digest %s", st.Source, st.Digest)
	}
}
