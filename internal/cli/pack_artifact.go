package cli

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	pb "oscine.dev/oscine/internal/api/oscinepb"
	"oscine.dev/oscine/internal/artifact"
	"oscine.dev/oscine/internal/client"
	"oscine.dev/oscine/internal/pack"
	"oscine.dev/oscine/internal/pki"
)

// registries is how this computer reaches registries: with Docker's credentials.
func registries(plainHTTP bool) (artifact.Access, error) {
	login, err := artifact.DockerLogin()
	return artifact.Access{Login: login, PlainHTTP: plainHTTP, SignIn: "docker login %s (or oras login, podman login)"}, err
}

func addPlainHTTP(c *cobra.Command) *bool {
	return c.Flags().Bool("plain-http", false, "ask the registry without TLS, which those on the way can read and change (always done on this very computer)")
}

func newPackPushCommand(env *Env) *cobra.Command {
	var plain *bool
	c := &cobra.Command{
		Use: "push FILE... REFERENCE", Short: "Sign packs and write them to a registry or an OCI layout",
		Long: `Sign a pack's file with the key of the context's admin and write it to a registry, HOST/REPOSITORY:TAG,
or to an OCI image layout on this computer, oci:FOLDER:TAG or oci:FILE.tar:TAG. Several files are one pack for
several architectures. Credentials are those of docker login.`,
		Example: "  oscine pack push out/packs/onnxruntime-amd64.erofs ghcr.io/acme/packs/onnxruntime:1.31\n  oscine pack push onnxruntime-amd64.erofs onnxruntime-arm64.erofs oci:packs.tar:onnxruntime",
		Args:    rangeArgs(2, 9, "packs' files and a reference"),
		RunE: func(c *cobra.Command, args []string) error {
			files := args[:len(args)-1]
			r, err := artifact.Parse(args[len(args)-1])
			if err != nil {
				return usageError{err}
			}
			access, err := registries(*plain)
			if err != nil {
				return err
			}
			node, err := env.Client()
			if err != nil {
				return err
			}
			digest, err := pack.PushArtifact(c.Context(), r, access, files, adminSign(node), func(file string, size int64, in io.ReadCloser) io.ReadCloser {
				return newReadProgress(env, "push "+filepath.Base(file), size, in)
			})
			if err != nil {
				return err
			}
			fmt.Fprintf(env.Out, "%s pushed\n%s\n", r, r.Pinned(digest))
			return nil
		},
	}
	plain = addPlainHTTP(c)
	return c
}

// adminSign signs as the context's client, who has to be an admin: no node takes a
// pack that somebody else has signed.
func adminSign(node *client.Client) func([]byte) (pki.Signature, error) {
	return func(statement []byte) (pki.Signature, error) {
		s, err := node.Sign(statement)
		if err != nil {
			return s, err
		}
		cert, err := x509.ParseCertificate(s.Certificate)
		if err == nil && pki.RoleOf(cert) < pki.Admin {
			err = fmt.Errorf("you are %s, of the role %s: nodes take packs that an admin has signed", cert.Subject.CommonName, pki.RoleOf(cert))
		}
		return s, err
	}
}

func newPackPullCommand(env *Env) *cobra.Command {
	var plain *bool
	c := &cobra.Command{
		Use: "pull REFERENCE", Short: "Have the node fetch a pack from a registry and install it",
		Long: `Have the node fetch a pack from a registry and install it, in place of its other versions. The node checks that an
admin of its cluster signed it when it was pushed. It uses the credentials of its Secrets (oscine secret set
--registry). A pack in an OCI image layout, oci:FOLDER:TAG or oci:FILE.tar:TAG, is sent from this computer. An
interrupted download is resumed by the same command.`,
		Example: "  oscine pack pull ghcr.io/acme/packs/onnxruntime:1.31\n  oscine pack pull oci:packs.tar:onnxruntime",
		Args:    exactArgs(1, "a reference such as HOST/REPOSITORY:TAG"),
		RunE: func(c *cobra.Command, args []string) error {
			r, err := artifact.Parse(args[0])
			if err != nil {
				return usageError{err}
			}
			node, err := env.Client()
			if err != nil {
				return err
			}
			pull := pullPack
			if r.Local() {
				pull = sendPack
			}
			p, pinned, err := pull(c.Context(), env, node, r, *plain)
			if err != nil {
				return err
			}
			fmt.Fprintf(env.Out, "pack/%s %s installed, signed by %s\n%s\n", p.Name, p.Version, orDash(p.Signer), pinned)
			return nil
		},
	}
	plain = addPlainHTTP(c)
	return c
}

// pullPack has the node fetch a pack.
func pullPack(ctx context.Context, env *Env, node *client.Client, r artifact.Reference, plain bool) (*pb.Pack, string, error) {
	stream, err := node.Packs.Pull(ctx, connect.NewRequest(&pb.PullPackRequest{Reference: r.String(), PlainHttp: plain}))
	if err != nil {
		return nil, "", err
	}
	defer stream.Close()
	var bar *progress
	for stream.Receive() {
		m := stream.Msg()
		if m.Pack != nil {
			return m.Pack, m.Reference, nil
		}
		if bar == nil {
			bar = newProgress(env, "pull "+r.String(), m.SizeBytes)
			defer bar.done()
		}
		bar.at(m.ReceivedBytes)
	}
	return nil, "", errors.Join(stream.Err(), errIncomplete(stream.Err()))
}

// errIncomplete is the error of a stream that ended without an answer or an error.
func errIncomplete(err error) error {
	if err != nil {
		return nil
	}
	return errors.New("the node ended the call without an answer")
}

// sendPack sends the node a pack from an OCI layout, with its signature.
func sendPack(ctx context.Context, env *Env, node *client.Client, r artifact.Reference, _ bool) (*pb.Pack, string, error) {
	info, err := node.Node.Info(ctx, connect.NewRequest(&pb.InfoRequest{}))
	if err != nil {
		return nil, "", err
	}
	store, err := artifact.Open(ctx, r, artifact.Access{})
	if err != nil {
		return nil, "", err
	}
	a, err := pack.FindArtifact(ctx, store, info.Msg.Architecture)
	if err != nil {
		return nil, "", err
	}
	dir, err := os.MkdirTemp("", "oscine-pack-")
	if err != nil {
		return nil, "", err
	}
	defer os.RemoveAll(dir)
	f, err := os.Create(filepath.Join(dir, "pack.erofs"))
	if err != nil {
		return nil, "", err
	}
	defer f.Close()
	if err := a.Fetch(ctx, store, f, nil); err != nil {
		return nil, "", err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, "", err
	}
	first := &pb.Chunk{Signature: &pb.Signature{Certificate: a.Signature.Certificate, Value: a.Signature.Value}}
	resp, err := uploadFrom(env, r.String(), f, a.SizeBytes, first, node.Packs.Install(ctx))
	if err != nil {
		return nil, "", err
	}
	return resp.Pack, a.Reference, nil
}
