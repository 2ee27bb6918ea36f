package bucket

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/serve/bucket/buckettest"
	"oscine.dev/oscine/internal/serve/bundle"
)

// at reaches a server with its credentials.
func at(s *buckettest.Server) Access {
	return Access{S3: object.S3{Endpoint: s.URL, Secret: "minio"}, AccessKeyID: buckettest.AccessKeyID, SecretAccessKey: buckettest.SecretAccessKey}
}

func source(t testing.TB, text string) object.S3Source {
	t.Helper()
	s, ok := object.ParseS3("s3://" + buckettest.Bucket + "/" + text)
	if !ok {
		t.Fatalf("%q is no source", text)
	}
	return s
}

func untold(int64) error { return nil }

// fetch finds and downloads a model, and returns its files by name.
func fetch(t testing.TB, s object.S3Source, a Access) (m *Model, digest string, files map[string]string) {
	t.Helper()
	m, err := Find(t.Context(), s, a)
	if err != nil {
		t.Fatal(err)
	}
	out := t.TempDir()
	if digest, err = m.Fetch(t.Context(), t.TempDir(), out, untold); err != nil {
		t.Fatal(err)
	}
	files = map[string]string{}
	err = filepath.WalkDir(out, func(file string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := os.ReadFile(file)
		name, _ := filepath.Rel(out, file)
		files[name] = string(content)
		if info, _ := d.Info(); info.Mode() != 0o444 {
			t.Errorf("%s has the mode %v", name, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return m, digest, files
}

func TestFile(t *testing.T) {
	s := buckettest.Start(t)
	s.Put(map[string]string{"nets/digits.onnx": "graph", "nets/digits.onnx.sig": "x", "nets/größe +&?.onnx": "ü"})
	m, digest, files := fetch(t, source(t, "nets/digits.onnx"), at(s))
	if want := fmt.Sprintf("sha256:%x", sha256.Sum256([]byte("graph"))); len(files) != 1 || files["digits.onnx"] != "graph" || m.Format != ".onnx" || m.SizeBytes != 5 || digest != want {
		t.Errorf("got %v, %q, %+v", files, digest, m)
	}
	if _, _, files := fetch(t, source(t, "nets/größe +&?.onnx"), at(s)); files["größe +&?.onnx"] != "ü" {
		t.Errorf("a name that URLs escape: %v", files)
	}
	s.Put(map[string]string{"nets/digits.onnx": "gr\x00ph"})
	again, err := Find(t.Context(), source(t, "nets/digits.onnx"), at(s))
	if err != nil || again.Version == m.Version {
		t.Errorf("other content of the same size has the version %s: %v", again.Version, err)
	}
}

// A folder has the digest that oscine serve gives the same folder.
func TestFolder(t *testing.T) {
	want := map[string]string{"saved_model.pb": "graph", "variables/variables.index": "i", "a": "b", "empty": ""}
	s := buckettest.Start(t)
	objects := map[string]string{"m.other": "x", "m/.hidden": "x", "m/sub/.git/x": "x", "m/": ""}
	dir := t.TempDir()
	for name, content := range want {
		objects["m/"+name] = content
		file := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file, []byte(content), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	s.Put(objects)
	for _, key := range []string{"m", "m/"} {
		m, digest, files := fetch(t, source(t, key), at(s))
		if len(files) != len(want) || files["variables/variables.index"] != "i" || m.Format != "" {
			t.Errorf("%s: %v, %+v", key, files, m)
		}
		local, err := bundle.Find(dir)
		if err != nil {
			t.Fatal(err)
		}
		if uploaded := digestOf(t, local); digest != uploaded {
			t.Errorf("%s: the digest is %s, uploaded it is %s", key, digest, uploaded)
		}
	}
}

func TestPinned(t *testing.T) {
	s := buckettest.StartPublic(t)
	s.Put(map[string]string{"digits.onnx": "graph"})
	access := Access{S3: object.S3{Endpoint: s.URL}}
	_, digest, _ := fetch(t, source(t, "digits.onnx"), access)
	if _, again, _ := fetch(t, source(t, "digits.onnx@"+digest), access); again != digest {
		t.Errorf("got %s, want %s", again, digest)
	}
	s.Put(map[string]string{"digits.onnx": "other"})
	m, err := Find(t.Context(), source(t, "digits.onnx@"+digest), access)
	if err != nil {
		t.Fatal(err)
	}
	out := t.TempDir()
	if _, err := m.Fetch(t.Context(), t.TempDir(), out, untold); !errors.Is(err, ErrDigest) {
		t.Errorf("a file that was replaced: %v", err)
	}
	if left, _ := os.ReadDir(out); len(left) > 0 {
		t.Errorf("it leaves %v", left)
	}
}

func TestFetchGoesOn(t *testing.T) {
	s := buckettest.Start(t)
	content := strings.Repeat("weights!", (2*syncEvery+3*maxWrite)/8)
	s.Put(map[string]string{"m/big.bin": content, "m/small": "x"})
	m, err := Find(t.Context(), source(t, "m"), at(s))
	if err != nil {
		t.Fatal(err)
	}
	// Cut often, it goes on by itself.
	s.Cut(len(content)/3 + 1)
	work, most := t.TempDir(), int64(0)
	digest, err := m.Fetch(t.Context(), work, t.TempDir(), func(n int64) error { most = max(most, n); return nil })
	if err != nil || most != m.SizeBytes {
		t.Fatalf("%v, it told %d of %d bytes", err, most, m.SizeBytes)
	}
	if asked := strings.Join(s.Asked(), "\n"); !strings.Contains(asked, fmt.Sprintf("bytes=%d-%d", len(content)/3+1, len(content)-1)) {
		t.Errorf("it did not go on where it was:\n%s", asked)
	}
	// What is whole is not asked for again.
	if again, err := m.Fetch(t.Context(), work, t.TempDir(), untold); err != nil || again != digest || len(s.Asked()) > 0 {
		t.Errorf("again: %s, %v", again, err)
	}
	// Of what another process left, what was certainly on disk counts.
	s.Cut(0)
	work = t.TempDir()
	if err := os.WriteFile(filepath.Join(work, "0"), []byte(content[:2*syncEvery+2*maxWrite]), 0o600); err != nil {
		t.Fatal(err)
	}
	if again, err := m.Fetch(t.Context(), work, t.TempDir(), untold); err != nil || again != digest {
		t.Errorf("after a crash: %s, %v", again, err)
	}
	if asked := strings.Join(s.Asked(), "\n"); !strings.Contains(asked, fmt.Sprintf("bytes=%d-", 2*syncEvery)) {
		t.Errorf("after a crash it asked for\n%s", asked)
	}
	full := errors.New("the disk is full")
	if _, err := m.Fetch(t.Context(), t.TempDir(), t.TempDir(), func(int64) error { return full }); !errors.Is(err, full) {
		t.Errorf("a full disk: %v", err)
	}
	s.Put(map[string]string{"m/big.bin": strings.Repeat("w", len(content))})
	if _, err := m.Fetch(t.Context(), t.TempDir(), t.TempDir(), untold); !errors.Is(err, ErrServer) || !strings.Contains(err.Error(), "changed while it was fetched") {
		t.Errorf("what changed meanwhile: %v", err)
	}
}

func TestFetchThatStalls(t *testing.T) {
	s := buckettest.Start(t)
	s.Put(map[string]string{"m": strings.Repeat("x", 100_000)})
	m, err := Find(t.Context(), source(t, "m"), at(s))
	if err != nil {
		t.Fatal(err)
	}
	m.stall = 50 * time.Millisecond
	s.Hang(60_000)
	if _, err := m.Fetch(t.Context(), t.TempDir(), t.TempDir(), untold); err != nil {
		t.Errorf("a server that stops once: %v", err)
	}
	s.Hang(1)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := m.Fetch(ctx, t.TempDir(), t.TempDir(), untold); err == nil {
		t.Error("a server that sends a byte in 50 ms: no error")
	}
}

func TestErrorsSayWhatHelps(t *testing.T) {
	s := buckettest.Start(t)
	s.Put(map[string]string{"nets/digits.onnx": "graph", "nets/digits-v2.onnx": "graph", "nets/faces/a": "x"})
	other := func(change func(*Access)) Access {
		a := at(s)
		change(&a)
		return a
	}
	away := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a redirect was followed") }))
	defer away.Close()
	redirect := func(w http.ResponseWriter, q *http.Request) {
		w.Header().Set("Location", away.URL+q.RequestURI)
		buckettest.Refuse(w, http.StatusTemporaryRedirect, "TemporaryRedirect", "elsewhere")
	}
	region := func(w http.ResponseWriter, q *http.Request) {
		w.Header().Set("X-Amz-Bucket-Region", "eu-central-1")
		buckettest.Refuse(w, http.StatusBadRequest, "AuthorizationHeaderMalformed", "the region 'us-east-1' is wrong")
	}
	for name, c := range map[string]struct {
		key    string
		access Access
		answer http.HandlerFunc
		is     error
		says   []string
	}{
		"a typo":         {"nets/digit.onnx", at(s), nil, ErrNotFound, []string{`there are ["digits.onnx" "digits-v2.onnx" "faces/"]`, "as a file or folder"}},
		"nothing near":   {"nots/x", at(s), nil, ErrNotFound, []string{"nothing that may be listed is in s3://models/nots/"}},
		"no bucket":      {"nets/digits.onnx", at(s), func(w http.ResponseWriter, q *http.Request) { buckettest.Refuse(w, 404, "NoSuchBucket", "x") }, ErrNotFound, []string{"has no bucket models"}},
		"no credentials": {"nets/digits.onnx", other(func(a *Access) { a.AccessKeyID, a.Secret = "", "" }), nil, ErrDenied, []string{"with no credentials: name a Secret", "--from-stdin AWS_SECRET_ACCESS_KEY"}},
		"unknown key":    {"nets/digits.onnx", other(func(a *Access) { a.AccessKeyID = "AKIDOTHER" }), nil, ErrDenied, []string{"does not know the AWS_ACCESS_KEY_ID of Secret/minio"}},
		"wrong secret":   {"nets/digits.onnx", other(func(a *Access) { a.SecretAccessKey = "hush" }), nil, ErrDenied, []string{"the AWS_SECRET_ACCESS_KEY of Secret/minio does not belong"}},
		"no permission":  {"nets/digits.onnx", at(s), func(w http.ResponseWriter, q *http.Request) { buckettest.Refuse(w, 403, "AccessDenied", "x") }, ErrDenied, []string{"AccessDenied for s3://models/nets/digits.onnx with the credentials of Secret/minio: they must allow s3:GetObject"}},
		"another region": {"nets/digits.onnx", other(func(a *Access) { a.Region = "us-east-1" }), region, ErrServer, []string{"the bucket models is in the region eu-central-1, not us-east-1: set the region eu-central-1"}},
		"a redirect":     {"nets/digits.onnx", at(s), redirect, ErrServer, []string{"redirects, which is not followed"}},
		"no S3 server":   {"nets/digits.onnx", at(s), http.NotFound, ErrNotFound, []string{"models"}},
		"TLS":            {"nets/digits.onnx", other(func(a *Access) { a.Endpoint = "https" + strings.TrimPrefix(s.URL, "http") }), nil, ErrServer, []string{"speaks plain HTTP", "write the endpoint with http://"}},
		"nobody there":   {"nets/digits.onnx", other(func(a *Access) { a.Endpoint = "http://127.0.0.1:1" }), nil, ErrUnreachable, []string{"127.0.0.1:1", "is the endpoint right"}},
		"an endless answer": {"nets/digits.onnx", at(s), func(w http.ResponseWriter, q *http.Request) {
			line := []byte("<ListBucketResult>" + strings.Repeat("<Contents>", 10_000))
			for q.Context().Err() == nil {
				if _, err := w.Write(line); err != nil {
					return
				}
			}
		}, ErrModel, []string{"a listing of more than"}},
		"a size below zero": {"nets/digits.onnx", at(s), func(w http.ResponseWriter, q *http.Request) {
			fmt.Fprint(w, `<ListBucketResult><Contents><Key>nets/digits.onnx</Key><Size>-1</Size><ETag>"a"</ETag></Contents></ListBucketResult>`)
		}, ErrModel, []string{"-1 bytes"}},
		"no ETag": {"nets/digits.onnx", at(s), func(w http.ResponseWriter, q *http.Request) {
			fmt.Fprint(w, `<ListBucketResult><Contents><Key>nets/digits.onnx</Key><Size>1</Size></Contents></ListBucketResult>`)
		}, ErrModel, []string{"no ETag", "nets/digits.onnx"}},
		"too large": {"nets/digits.onnx", at(s), func(w http.ResponseWriter, q *http.Request) {
			fmt.Fprint(w, `<ListBucketResult><Contents><Key>nets/digits.onnx</Key><Size>9223372036854775807</Size><ETag>"a"</ETag></Contents></ListBucketResult>`)
		}, ErrModel, []string{"is larger than"}},
		"a name that leads out": {"nets", at(s), func(w http.ResponseWriter, q *http.Request) {
			fmt.Fprint(w, `<ListBucketResult><Contents><Key>nets//x</Key><Size>1</Size><ETag>"a"</ETag></Contents></ListBucketResult>`)
		}, ErrModel, []string{"leads out of the model's folder"}},
	} {
		t.Run(name, func(t *testing.T) {
			s.Answer(c.answer)
			defer s.Answer(nil)
			_, err := Find(t.Context(), source(t, c.key), c.access)
			if !errors.Is(err, c.is) {
				t.Fatalf("got %v, want %v", err, c.is)
			}
			for _, text := range c.says {
				if !strings.Contains(err.Error(), text) {
					t.Errorf("%q does not say %q", err, text)
				}
			}
			if strings.Contains(err.Error(), buckettest.SecretAccessKey) || strings.Contains(err.Error(), "hush") || strings.Contains(err.Error(), "AKID") {
				t.Errorf("%q repeats credentials", err)
			}
		})
	}
}

// Who may read a file need not be allowed to list the bucket.
func TestFileWithoutListing(t *testing.T) {
	s := buckettest.Start(t)
	s.ForbidLists()
	s.Put(map[string]string{"digits.onnx": "graph", "m/a": "x", "m/b": "y"})
	if _, _, files := fetch(t, source(t, "digits.onnx"), at(s)); files["digits.onnx"] != "graph" {
		t.Errorf("got %v", files)
	}
	if _, err := Find(t.Context(), source(t, "m"), at(s)); !errors.Is(err, ErrDenied) || !strings.Contains(err.Error(), "s3:ListBucket") {
		t.Errorf("a folder: %v", err)
	}
}

// A file below a folder keeps the folder, so its digest is not the file's.
func TestFolderOfOneFile(t *testing.T) {
	s := buckettest.Start(t)
	s.Put(map[string]string{"file.onnx": "graph", "folder/1/file.onnx": "graph"})
	var digests []string
	for _, key := range []string{"file.onnx", "folder"} {
		m, err := Find(t.Context(), source(t, key), at(s))
		if err != nil {
			t.Fatal(err)
		}
		digest, err := m.Fetch(t.Context(), t.TempDir(), t.TempDir(), untold)
		if err != nil {
			t.Fatal(err)
		}
		digests = append(digests, m.Format+" "+digest)
	}
	if digests[0][:6] != ".onnx " || digests[1][0] != ' ' || digests[0][6:] == digests[1][1:] {
		t.Errorf("got %q", digests)
	}
}

func TestServerThatSendsAnother(t *testing.T) {
	s := buckettest.Start(t)
	s.Put(map[string]string{"m": "graph"})
	m, err := Find(t.Context(), source(t, "m"), at(s))
	if err != nil {
		t.Fatal(err)
	}
	for _, length := range []string{"3", "9"} {
		s.Answer(func(w http.ResponseWriter, q *http.Request) {
			w.Header().Set("ETag", `"`+m.objects[0].etag+`"`)
			w.Header().Set("Last-Modified", "Wed, 21 Oct 2015 07:28:00 GMT")
			w.Header().Set("Content-Length", length)
			_, _ = w.Write([]byte(strings.Repeat("x", 9)[:length[0]-'0']))
		})
		if _, err := m.Fetch(t.Context(), t.TempDir(), t.TempDir(), untold); !errors.Is(err, ErrServer) {
			t.Errorf("%s bytes: %v", length, err)
		}
	}
}

func digestOf(t testing.TB, files []bundle.File) string {
	t.Helper()
	work := t.TempDir()
	m := &Model{}
	for i, f := range files {
		m.objects = append(m.objects, item{name: f.Name, size: f.Size})
		if err := os.Link(f.Path, part(work, i)); err != nil {
			t.Fatal(err)
		}
	}
	digest, err := m.digest(work)
	if err != nil {
		t.Fatal(err)
	}
	return digest
}
