package cli

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	pb "oscine.dev/oscine/internal/api/oscinepb"
	"oscine.dev/oscine/internal/artifact"
	"oscine.dev/oscine/internal/client"
	"oscine.dev/oscine/internal/gguf"
	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/serve/bundle"
	"oscine.dev/oscine/internal/serve/modelpack"
)

func newModelPushCommand(env *Env) *cobra.Command {
	var plain *bool
	var name, version string
	c := &cobra.Command{
		Use: "push FILE|FOLDER REFERENCE", Short: "Write a model to a registry or an OCI layout",
		Long: `Write a model, a file with the data files that it names or a folder, as an OCI artifact in CNCF's ModelPack
layout: to a registry, oci://HOST/REPOSITORY:TAG, or to an OCI image layout on this computer, oci:FOLDER:TAG or
oci:FILE.tar:TAG. Credentials are those of docker login. No node is asked.`,
		Example: "  oscine model push digits.onnx oci://ghcr.io/acme/digits:1\n  oscine model push ./saved_model oci:models.tar:vision",
		Args:    exactArgs(2, "a model and a reference"),
		RunE: func(c *cobra.Command, args []string) error {
			r, err := artifact.Parse(args[1])
			if err != nil {
				return usageError{err}
			}
			source, err := findModel(args[0])
			if err != nil {
				return err
			}
			files, err := source.list()
			if err != nil {
				return err
			}
			access, err := registries(*plain)
			if err != nil {
				return err
			}
			digest, err := modelpack.Push(c.Context(), r, access, files, cmp.Or(name, modelName(args[0])), version, func(file string, size int64, in io.ReadCloser) io.ReadCloser {
				return newReadProgress(env, "push "+file, size, in)
			})
			if err != nil {
				return err
			}
			fmt.Fprintf(env.Out, "%s pushed\n%s\n", r.Source(), r.Pinned(digest).Source())
			return nil
		},
	}
	c.Flags().StringVar(&name, "name", "", "name in the model's description (default: from the file)")
	c.Flags().StringVar(&version, "version", "", "version in the model's description")
	plain = addPlainHTTP(c)
	return c
}

// list is the files of the model, also where it is one.
func (s *modelSource) list() ([]bundle.File, error) {
	if len(s.files) > 0 {
		return s.files, nil
	}
	info, err := os.Stat(s.path)
	if err != nil {
		return nil, err
	}
	return []bundle.File{{Name: filepath.Base(s.path), Path: s.path, Size: info.Size()}}, nil
}

func newModelPullCommand(env *Env) *cobra.Command {
	var plain *bool
	var s3 s3Flags
	c := &cobra.Command{
		Use: "pull REFERENCE", Short: "Have the node fetch a model from a registry or S3 bucket, without serving it",
		Long: `Have the node fetch a model from a registry: CNCF's ModelPack layout, Docker's and Ollama's are read. It uses the
credentials of its Secrets (oscine secret set --registry). A model in an OCI image layout, oci:FOLDER:TAG or
oci:FILE.tar:TAG, is sent from this computer. s3://BUCKET/KEY is a file or folder in an S3 bucket. An interrupted
download is resumed by the same command.`,
		Example: "  oscine model pull oci://docker.io/ai/smollm2:135M-Q4_0\n  oscine model pull oci:models.tar:vision\n  oscine model pull s3://models/digits.onnx --s3-endpoint https://minio.example:9000 --s3-secret minio",
		Args:    exactArgs(1, "a reference such as oci://HOST/REPOSITORY:TAG or s3://BUCKET/KEY"),
		RunE: func(c *cobra.Command, args []string) error {
			source, local, err := sourceOf(args[0])
			if err := errors.Join(err, s3.check(args[0])); err != nil {
				return err
			}
			node, err := env.Client()
			if err != nil {
				return err
			}
			if local != nil {
				digest, err := sendModel(c.Context(), env, node, *local)
				if err != nil {
					return err
				}
				fmt.Fprintln(env.Out, digest)
				return nil
			}
			resp, err := pullModel(c.Context(), env, node, source, *plain, s3.object())
			if err != nil {
				return err
			}
			fmt.Fprintf(env.Out, "%s\n%s\n", resp.Digest, pulledSource(resp))
			return nil
		},
	}
	plain = addPlainHTTP(c)
	s3.add(c)
	return c
}

// sourceOf reads what a node pulls, as a Model's spec.source, or a reference to an OCI
// layout on this computer.
func sourceOf(text string) (source string, local *artifact.Reference, err error) {
	if object.IsS3(text) {
		if _, ok := object.ParseS3(text); !ok {
			return "", nil, usageError{fmt.Errorf("%.300q names no file or folder in a bucket: write it as s3://BUCKET/KEY", text)}
		}
		return text, nil, nil
	}
	r, err := artifact.Parse(text)
	if err != nil {
		return "", nil, usageError{err}
	}
	if r.Local() {
		local = &r
	}
	return r.Source(), local, nil
}

// pulledSource is what was pulled, as a Model's spec.source.
func pulledSource(resp *pb.PullModelResponse) string {
	if object.IsS3(resp.Reference) {
		return resp.Reference
	}
	return "oci://" + resp.Reference
}

// s3Flags say how a bucket is reached.
type s3Flags struct {
	object.S3
	pathStyle bool
	set       *pflag.FlagSet
}

func (o *s3Flags) add(c *cobra.Command) {
	o.set = c.Flags()
	o.set.StringVar(&o.Endpoint, "s3-endpoint", "", "URL of the server of an s3:// source (default AWS)")
	o.set.StringVar(&o.Region, "s3-region", "", "region of the bucket (default: the server is asked)")
	o.set.BoolVar(&o.pathStyle, "s3-path-style", false, "put the bucket's name into the URL's path (default: by the endpoint)")
	o.set.StringVar(&o.Secret, "s3-secret", "", "Secret with the entries "+object.S3AccessKeyID+" and "+object.S3SecretAccessKey+" (default: none, for public buckets)")
}

// check refuses flags with a source that is in no bucket.
func (o *s3Flags) check(source string) error {
	if o.object() != nil && !object.IsS3(source) {
		return usageError{errors.New("--s3-endpoint, --s3-region, --s3-path-style and --s3-secret are for s3://BUCKET/KEY")}
	}
	return nil
}

// object is nil where no flag was given.
func (o *s3Flags) object() *object.S3 {
	s := o.S3
	if o.set != nil && o.set.Changed("s3-path-style") {
		s.PathStyle = &o.pathStyle
	}
	if s == (object.S3{}) {
		return nil
	}
	return &s
}

// spec is the same as a manifest has it, nil for nothing.
func (o *s3Flags) spec() map[string]any {
	s := o.object()
	if s == nil {
		return nil
	}
	spec := map[string]any{}
	for field, value := range map[string]string{"endpoint": s.Endpoint, "region": s.Region, "secret": s.Secret} {
		if value != "" {
			spec[field] = value
		}
	}
	if s.PathStyle != nil {
		spec["pathStyle"] = *s.PathStyle
	}
	return spec
}

// pullModel has the node fetch a model.
func pullModel(ctx context.Context, env *Env, node *client.Client, source string, plain bool, s3 *object.S3) (*pb.PullModelResponse, error) {
	q := &pb.PullModelRequest{Reference: source, PlainHttp: plain}
	if s3 != nil {
		q.S3 = &pb.S3{Endpoint: s3.Endpoint, Region: s3.Region, PathStyle: s3.PathStyle, Secret: s3.Secret}
	}
	stream, err := node.Models.Pull(ctx, connect.NewRequest(q))
	if err != nil {
		return nil, err
	}
	defer stream.Close()
	var bar *progress
	for stream.Receive() {
		m := stream.Msg()
		if m.Digest != "" {
			return m, nil
		}
		if bar == nil {
			bar = newProgress(env, "pull "+strings.TrimPrefix(source, "oci://"), m.SizeBytes)
			defer bar.done()
		}
		bar.at(m.ReceivedBytes)
	}
	return nil, errors.Join(stream.Err(), errIncomplete(stream.Err()))
}

// sendModel sends the node a model from an OCI layout and returns its digest.
func sendModel(ctx context.Context, env *Env, node *client.Client, r artifact.Reference) (string, error) {
	file, remove, err := fetchModel(ctx, env, r, artifact.Access{})
	if err != nil {
		return "", err
	}
	defer remove()
	source, err := findModel(file)
	if err != nil {
		return "", err
	}
	return source.upload(ctx, env, node)
}

// fetchModel takes a model out of an OCI layout or a registry, as a file or folder.
func fetchModel(ctx context.Context, env *Env, r artifact.Reference, access artifact.Access) (file string, remove func(), err error) {
	store, err := artifact.Open(ctx, r, access)
	if err != nil {
		return "", nil, err
	}
	m, err := modelpack.Find(ctx, store, runtime.GOARCH)
	if err != nil {
		return "", nil, err
	}
	dir, err := os.MkdirTemp("", "oscine-model-")
	if err != nil {
		return "", nil, err
	}
	work, out := filepath.Join(dir, "work"), filepath.Join(dir, "model")
	remove = func() { _ = os.RemoveAll(dir) }
	bar := newProgress(env, "read "+r.String(), m.SizeBytes)
	defer bar.done()
	err = errors.Join(os.Mkdir(work, 0o700), os.Mkdir(out, 0o700))
	if err == nil {
		err = m.Fetch(ctx, store, work, out, func(n int64) error { bar.at(n); return nil })
	}
	if err != nil {
		remove()
		return "", nil, err
	}
	entries, err := os.ReadDir(out)
	if err == nil && len(entries) == 1 && entries[0].Type().IsRegular() {
		out = filepath.Join(out, entries[0].Name())
	}
	return out, remove, err
}

// nameOf makes a model's name of a reference.
func nameOf(r artifact.Reference) string {
	name := path.Base(r.Repository())
	if r.Local() {
		name = r.Tag()
	}
	return strings.Trim(notInName.ReplaceAllString(strings.ToLower(name), "-"), "-")
}

// runSource has the node pull a model and serve it.
func (o *serveOptions) runSource(ctx context.Context, env *Env, source, name string) (*object.ModelStatus, error) {
	o.name = cmp.Or(o.name, name)
	text, err := o.manifest("", source)
	if err != nil {
		return nil, err
	}
	if o.dryRun {
		_, err := fmt.Fprint(env.Out, text)
		return nil, err
	}
	node, err := env.Client()
	if err != nil {
		return nil, err
	}
	resp, err := pullModel(ctx, env, node, source, o.plainHTTP, o.s3.object())
	if err != nil {
		return nil, err
	}
	if len(resp.LanguageModel) > 0 {
		header, err := gguf.Read(bytes.NewReader(resp.LanguageModel), resp.SizeBytes)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", source, err)
		}
		if err := o.planLanguage(strings.TrimPrefix(source, "oci://"), header, env.Err); err != nil {
			return nil, err
		}
	}
	if text, err = o.manifest("", pulledSource(resp)); err != nil {
		return nil, err
	}
	return o.apply(ctx, env, node, text)
}
