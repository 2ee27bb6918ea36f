package object

import (
	"net"
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"

	"oscine.dev/oscine/internal/pattern"
)

// schemeS3 begins a source in a bucket.
const schemeS3 = "s3://"

// maxS3Key is how many bytes S3 takes for a key.
const maxS3Key = 1024

// The entries of a Secret with the credentials for a bucket, named as the variables that
// all tools for S3 read.
const (
	S3AccessKeyID     = "AWS_ACCESS_KEY_ID"
	S3SecretAccessKey = "AWS_SECRET_ACCESS_KEY"
	S3SessionToken    = "AWS_SESSION_TOKEN" // of temporary credentials only
)

// S3 says how the bucket of an s3:// source is reached. All of it may be left out
// for a public bucket of AWS.
type S3 struct {
	// Endpoint is the server's URL, such as https://minio.example:9000; default: AWS.
	// http:// can be read and changed on the way.
	Endpoint string `json:"endpoint,omitempty"`
	Region   string `json:"region,omitempty"` // of the bucket, such as eu-central-1; default: the server is asked
	// PathStyle puts the bucket's name into the path of the URL, not before the host's
	// name; default: by the endpoint, true unless its provider is known to want the other.
	PathStyle *bool `json:"pathStyle,omitempty"`
	// Secret has the credentials: the entries AWS_ACCESS_KEY_ID,
	// AWS_SECRET_ACCESS_KEY and, for temporary ones, AWS_SESSION_TOKEN; default: the
	// bucket is asked without credentials.
	Secret string `json:"secret,omitempty"`
}

// S3Source is a source in a bucket, read.
type S3Source struct {
	Bucket string
	Key    string // of a file, or the prefix of a folder
	Digest string // sha256:… that the model must have, "" for any
}

// String is the source as a manifest has it.
func (s S3Source) String() string {
	text := schemeS3 + s.Bucket + "/" + s.Key
	if s.Digest != "" {
		text += "@" + s.Digest
	}
	return text
}

var (
	bucketRE = pattern.New(`^[A-Za-z0-9][A-Za-z0-9._-]{1,61}[A-Za-z0-9]$`)
	regionRE = pattern.New(`^[A-Za-z0-9][A-Za-z0-9-]{0,62}$`)
)

// IsS3 reports whether a source is meant to be in a bucket.
func IsS3(source string) bool { return strings.HasPrefix(source, schemeS3) }

// ParseS3 reads s3://BUCKET/KEY, with @sha256:… behind it where the model's digest is
// given. It reports false for anything else.
func ParseS3(source string) (S3Source, bool) {
	rest, ok := strings.CutPrefix(source, schemeS3)
	if !ok {
		return S3Source{}, false
	}
	var s S3Source
	if at := strings.LastIndexByte(rest, '@'); at >= 0 && digestRE.MatchString(rest[at+1:]) {
		rest, s.Digest = rest[:at], rest[at+1:]
	}
	s.Bucket, s.Key, _ = strings.Cut(rest, "/")
	if !bucketRE.MatchString(s.Bucket) || strings.Contains(s.Bucket, "..") || net.ParseIP(s.Bucket) != nil || strings.Trim(s.Key, "/") == "" || len(s.Key) > maxS3Key ||
		!utf8.ValidString(s.Key) || strings.ContainsFunc(s.Key, unicode.IsControl) {
		return S3Source{}, false
	}
	return s, true
}

func isS3(source string) bool {
	_, ok := ParseS3(source)
	return ok
}

// Check refuses what reaches no bucket. At is the path of s in its manifest.
func (s *S3) Check(c *Checker, at string) {
	if s.Endpoint != "" {
		u, err := url.Parse(s.Endpoint)
		switch {
		case err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "":
			c.Bad(at+".endpoint", "must be https://HOST[:PORT], the server's address without bucket or key")
		case u.User != nil: // not repeated
			c.Bad(at+".endpoint", "must hold no credentials: put them into a Secret and name that in %s.secret", at)
		}
	}
	if s.Region != "" && !regionRE.MatchString(s.Region) {
		c.Bad(at+".region", "must be letters, digits or '-', such as eu-central-1, got %q", s.Region)
	}
	if s.Secret != "" {
		if err := CheckName(s.Secret); err != nil {
			c.Bad(at+".secret", "%v: it is the name of a Secret with the entries %s and %s", err, S3AccessKeyID, S3SecretAccessKey)
		}
	}
}

// SecretName is the Secret that the model's source needs, "" for none.
func (m *Model) SecretName() string {
	if m.Spec.S3 == nil {
		return ""
	}
	return m.Spec.S3.Secret
}

// SourceID tells the model's source from all others; see S3.SourceID.
func (m *Model) SourceID() string { return m.Spec.S3.SourceID(m.Spec.Source) }

// SourceID tells a source from all others: its text, and for one in a bucket whose content
// may change the server too. S may be nil.
func (s *S3) SourceID(source string) string {
	if in, ok := ParseS3(source); !ok || in.Digest != "" || s == nil || s.Endpoint == "" {
		return source
	}
	return source + " at " + s.Endpoint
}
