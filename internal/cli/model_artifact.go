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
	c := &cobra.Command{
		Use: "pull REFERENCE", Short: "Have the node fetch a model from a registry, without serving it",
		Long: `Have the node fetch a model from a registry: CNCF's ModelPack layout, Docker's and Ollama's are read. It uses the
credentials of its Secrets (oscine secret set --registry). A model in an OCI image layout, oci:FOLDER:TAG or
oci:FILE.tar:TAG, is sent from this computer. An interrupted download is resumed by the same command.`,
		Example: "  oscine model pull oci://docker.io/ai/smollm2:135M-Q4_0\n  oscine model pull oci:models.tar:vision",
		Args:    exactArgs(1, "a reference such as oci://HOST/REPOSITORY:TAG"),
		RunE: func(c *cobra.Command, args []string) error {
			r, err := artifact.Parse(args[0])
			if err != nil {
				return usageError{err}
			}
			node, err := env.Client()
			if err != nil {
				return err
			}
			if r.Local() {
				digest, err := sendModel(c.Context(), env, node, r)
				if err != nil {
					return err
				}
				fmt.Fprintln(env.Out, digest)
				return nil
			}
			resp, err := pullModel(c.Context(), env, node, r, *plain)
			if err != nil {
				return err
			}
			fmt.Fprintf(env.Out, "%s\noci://%s\n", resp.Digest, resp.Reference)
			return nil
		},
	}
	plain = addPlainHTTP(c)
	return c
}

// pullModel has the node fetch a model.
func pullModel(ctx context.Context, env *Env, node *client.Client, r artifact.Reference, plain bool) (*pb.PullModelResponse, error) {
	stream, err := node.Models.Pull(ctx, connect.NewRequest(&pb.PullModelRequest{Reference: r.Source(), PlainHttp: plain}))
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
			bar = newProgress(env, "pull "+r.String(), m.SizeBytes)
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

// runReference has the node pull a model and serve it.
func (o *serveOptions) runReference(ctx context.Context, env *Env, r artifact.Reference) (*object.ModelStatus, error) {
	o.name = cmp.Or(o.name, nameOf(r))
	text, err := o.manifest("", r.Source())
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
	resp, err := pullModel(ctx, env, node, r, o.plainHTTP)
	if err != nil {
		return nil, err
	}
	if len(resp.LanguageModel) > 0 {
		header, err := gguf.Read(bytes.NewReader(resp.LanguageModel), resp.SizeBytes)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", r, err)
		}
		if err := o.planLanguage(r.String(), header, env.Err); err != nil {
			return nil, err
		}
	}
	if text, err = o.manifest("", "oci://"+resp.Reference); err != nil {
		return nil, err
	}
	return o.apply(ctx, env, node, text)
}
