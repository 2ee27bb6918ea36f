package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	pb "oscine.dev/oscine/internal/api/oscinepb"
	"oscine.dev/oscine/internal/client"
	"oscine.dev/oscine/internal/printable"
)

func newImageCommand(env *Env) *cobra.Command {
	c := &cobra.Command{Use: "image", Short: "Build disk images; import, list and remove container images"}
	c.AddCommand(newImageBuildCommand(env), newImageInspectCommand(env), newImageImportCommand(env), newImagePullCommand(env), newImageListCommand(env), newImageRemoveCommand(env))
	return c
}

func newImageImportCommand(env *Env) *cobra.Command {
	return &cobra.Command{
		Use: "import FILE.tar", Short: "Send an OCI or Docker archive to the node (- for standard input)", Args: exactArgs(1, "FILE.tar"),
		RunE: func(c *cobra.Command, args []string) error {
			node, err := env.Client()
			if err != nil {
				return err
			}
			resp, err := upload(env, args[0], &pb.Chunk{}, node.Images.Import(c.Context()))
			if err != nil {
				return err
			}
			for _, im := range resp.Images {
				fmt.Fprintf(env.Out, "%s %s\n", im.Name, im.Digest)
			}
			return nil
		},
	}
}

// upload streams a file to the node, after a first message about it, with a line of
// progress on a terminal.
func upload[T any](env *Env, file string, first *pb.Chunk, stream *connect.ClientStreamForClient[pb.Chunk, T]) (*T, error) {
	r, size := env.In, int64(0)
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, fmt.Errorf("%w; give the path of a file on this machine", err)
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil {
			return nil, err
		}
		if !info.Mode().IsRegular() {
			return nil, fmt.Errorf("%s is not a file", file)
		}
		r, size = f, info.Size()
	}
	return uploadFrom(env, file, r, size, first, stream)
}

// uploadFrom is upload of what r reads, under the name that people see.
func uploadFrom[T any](env *Env, file string, r io.Reader, size int64, first *pb.Chunk, stream *connect.ClientStreamForClient[pb.Chunk, T]) (*T, error) {
	if err := stream.Send(first); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	bar := newProgress(env, file, size)
	defer bar.done()
	w := &chunkWriter{send: func(p []byte) error {
		bar.add(len(p))
		return stream.Send(&pb.Chunk{Data: p})
	}}
	_, err := io.CopyBuffer(w, struct{ io.Reader }{r}, make([]byte, chunkBytes))
	if err != nil {
		return nil, fmt.Errorf("send %s: %w", file, sendError(stream.CloseAndReceive, err))
	}
	bar.done()
	taking := newWaiting(env, file+": the node takes it in")
	defer taking.done()
	resp, err := stream.CloseAndReceive()
	if err != nil {
		return nil, err
	}
	return resp.Msg, nil
}

func newImagePullCommand(env *Env) *cobra.Command {
	return &cobra.Command{
		Use: "pull IMAGE", Short: "Have the node fetch an image from its registry", Args: exactArgs(1, "IMAGE"),
		RunE: func(c *cobra.Command, args []string) error {
			node, err := env.Client()
			if err != nil {
				return err
			}
			stream, err := node.Images.Pull(c.Context(), connect.NewRequest(&pb.PullImageRequest{Name: args[0]}))
			if err != nil {
				return err
			}
			defer stream.Close()
			for stream.Receive() {
				if m := stream.Msg(); m.Image != nil {
					fmt.Fprintf(env.Out, "%s %s\n", m.Image.Name, m.Image.Digest)
				} else {
					fmt.Fprintln(env.Err, printable.Text(m.Status))
				}
			}
			return stream.Err()
		},
	}
}

func newImageListCommand(env *Env) *cobra.Command {
	var output *string
	c := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List the node's container images", Args: exactArgs(0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			node, err := env.Client()
			if err != nil {
				return err
			}
			resp, err := node.Images.List(c.Context(), connect.NewRequest(&pb.ListImagesRequest{}))
			if err != nil {
				return err
			}
			return listImages(resp.Msg.Images).print(env.Out, *output)
		},
	}
	output = addOutput(c)
	return c
}

func imageNames(ctx context.Context, node *client.Client) ([]string, error) {
	resp, err := node.Images.List(ctx, connect.NewRequest(&pb.ListImagesRequest{}))
	if err != nil {
		return nil, err
	}
	return listImages(resp.Msg.Images).names, nil
}

// listImages lists images; a wide table has their whole digests.
func listImages(images []*pb.Image) listing {
	return listOf(images, (*pb.Image).GetName, "NAME\tDIGEST\tSIZE\tAGE", func(im *pb.Image, wide bool) string {
		return fmt.Sprintf("%s\t%s\t%s\t%s", printable.Text(im.Name), shortDigest(im.Digest, wide), printable.Bytes(im.SizeBytes), time.Since(im.Created.AsTime()).Round(time.Second))
	})
}

func newImageRemoveCommand(env *Env) *cobra.Command {
	return &cobra.Command{
		Use: "remove NAME", Aliases: []string{"rm"}, Short: "Remove a container image from the node", ValidArgsFunction: completeListed(env, imageNames), Args: exactArgs(1, "NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			node, err := env.Client()
			if err != nil {
				return err
			}
			if _, err = node.Images.Remove(c.Context(), connect.NewRequest(&pb.RemoveImageRequest{Name: args[0]})); err != nil {
				return err
			}
			fmt.Fprintf(env.Out, "%s removed\n", args[0])
			return nil
		},
	}
}
