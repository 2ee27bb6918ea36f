package cli

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	pb "oscine.dev/oscine/internal/api/oscinepb"
	"oscine.dev/oscine/internal/client"
	"oscine.dev/oscine/internal/pack"
	"oscine.dev/oscine/internal/printable"
)

func newPackCommand(env *Env) *cobra.Command {
	c := &cobra.Command{
		Use: "pack", Short: "Build, push, pull, install and list packs of engines and drivers",
		Long: `A pack carries an engine, such as ONNX Runtime, and everything that it needs, or the
programs by which a node knows devices of a kind, as one read-only file with a fixed digest.
It is built here and installed on a node, where each block of it is checked when it is read.
Registries carry packs as OCI artifacts, with the signature of the admin who pushed them.`,
	}
	c.AddCommand(newPackBuildCommand(env), newPackInstallCommand(env), newPackPushCommand(env), newPackPullCommand(env),
		newPackListCommand(env), newPackInspectCommand(env), newPackRemoveCommand(env))
	return c
}

func newPackBuildCommand(env *Env) *cobra.Command {
	var o pack.BuildOptions
	var quiet bool
	c := &cobra.Command{
		Use: "build [" + strings.Join(pack.Builds(), "|") + "]", Short: "Build a pack from its pinned packages and Oscine's source", Args: rangeArgs(0, 1, "a pack's name at most"),
		Example: "  oscine pack build\n  oscine pack build nvidia\n  oscine pack build nvidia-driver --accept-licence\n  oscine pack build --arch arm64 -o out/packs",
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 1 {
				o.Name = args[0]
			}
			if o.Name != "" && !slices.Contains(pack.Builds(), o.Name) {
				return usageError{fmt.Errorf("there is no pack %q: %s can be built", o.Name, strings.Join(pack.Builds(), ", "))}
			}
			var done func()
			o.Log, done = workLog(env, quiet)
			begin := time.Now()
			p, err := pack.Build(c.Context(), o)
			done()
			if err != nil {
				return err
			}
			if quiet {
				fmt.Fprintln(env.Out, p.Digest)
				return nil
			}
			fmt.Fprintf(env.Out, "%s\n  %s %s for %s, %s, built in %.1f s\n  %s\n", p.File, p.Name, p.Version, p.Arch,
				printable.Bytes(p.SizeBytes), time.Since(begin).Seconds(), p.Digest)
			for _, in := range p.Inputs {
				fmt.Fprintf(env.Out, "  from %s %s %.19s…\n", in.Name, in.Version, in.Digest)
			}
			return nil
		},
	}
	c.Flags().StringVar(&o.Arch, "arch", runtime.GOARCH, "amd64 or arm64")
	c.Flags().StringVarP(&o.Out, "output-dir", "o", "out/packs", "folder for the pack")
	c.Flags().StringVar(&o.Source, "source", ".", "checkout of Oscine")
	c.Flags().StringSliceVar(&o.Flavours, "kernel", nil, "of nvidia-driver: the kernels that it gets modules for: cloud")
	c.Flags().StringVar(&o.Secure, "secureboot", "", "of nvidia-driver: folder of oscine keys secureboot, with which the image was built: its db key signs the modules")
	c.Flags().StringVar(&o.Archive, "archive", "", "of nvidia-driver: NVIDIA-Linux-ARCH-VERSION.run from NVIDIA, in place of Debian's packages")
	c.Flags().BoolVar(&o.AcceptLicence, "accept-licence", false, "of nvidia-driver: accept NVIDIA's terms for its firmware and libraries")
	c.Flags().BoolVarP(&quiet, "quiet", "q", false, "print the digest and nothing else")
	return c
}

func newPackInstallCommand(env *Env) *cobra.Command {
	return &cobra.Command{
		Use: "install FILE", Short: "Install a pack on the node, in place of its other versions",
		Long: `Install a pack on the node. Models that run on another version go to this one, one after the other and
without a pause: a worker of this version starts beside the other, loads and tests the model, and has to
answer as that does. A model for which it fails stays on its version (oscine pack list, oscine events).
Installing the same file again tries again.`,
		Args: exactArgs(1, "FILE"),
		RunE: func(c *cobra.Command, args []string) error {
			node, err := env.Client()
			if err != nil {
				return err
			}
			resp, err := installPack(c.Context(), env, node, args[0])
			if err != nil {
				return err
			}
			fmt.Fprintf(env.Out, "pack/%s %s installed\n%s\n", resp.Pack.Name, resp.Pack.Version, resp.Pack.Digest)
			return nil
		},
	}
}

// installPack sends a pack with the signature of the context's client, which the
// node checks whenever it mounts it.
func installPack(ctx context.Context, env *Env, node *client.Client, file string) (*pb.InstallPackResponse, error) {
	if _, err := os.Stat(file); err != nil {
		return nil, fmt.Errorf("%w; oscine pack build makes one, and oscine pack pull fetches one from a registry", unreadable(file, err))
	}
	signature, err := pack.Sign(file, node.Sign)
	if err != nil {
		return nil, err
	}
	first := &pb.Chunk{Signature: &pb.Signature{Certificate: signature.Certificate, Value: signature.Value}}
	return upload(env, file, first, node.Packs.Install(ctx))
}

func newPackListCommand(env *Env) *cobra.Command {
	var output *string
	c := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List the node's packs", Args: exactArgs(0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			node, err := env.Client()
			if err != nil {
				return err
			}
			resp, err := node.Packs.List(c.Context(), connect.NewRequest(&pb.ListPacksRequest{}))
			if err != nil {
				return err
			}
			return listPacks(resp.Msg.Packs).print(env.Out, *output)
		},
	}
	output = addOutput(c)
	return c
}

func packNames(ctx context.Context, node *client.Client) ([]string, error) {
	resp, err := node.Packs.List(ctx, connect.NewRequest(&pb.ListPacksRequest{}))
	if err != nil {
		return nil, err
	}
	return listPacks(resp.Msg.Packs).names, nil
}

// listPacks lists packs; a wide table has their whole digests.
func listPacks(packs []*pb.Pack) listing {
	return listOf(packs, (*pb.Pack).GetName, "NAME\tVERSION\tSTATUS\tARCH\tSIZE\tENGINES\tDRIVERS\tTOOLS\tDIGEST", func(p *pb.Pack, wide bool) string {
		status := "Installed"
		switch {
		case p.Damaged != nil:
			status = "Damaged"
		case p.Next != "":
			status = "Replaced"
		}
		return fmt.Sprintf("%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s", orDash(p.Name), orDash(p.Version), status, orDash(p.Architecture), printable.Bytes(p.SizeBytes),
			printable.Text(strings.Join(p.Engines, ",")), printable.Text(strings.Join(p.Drivers, ",")), printable.Text(strings.Join(p.Tools, ",")), shortDigest(p.Digest, wide))
	})
}

func newPackRemoveCommand(env *Env) *cobra.Command {
	return &cobra.Command{
		Use: "remove NAME", Aliases: []string{"rm"}, Short: "Remove a pack that no model or workload runs on from the node", ValidArgsFunction: completeListed(env, packNames), Args: exactArgs(1, "NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			node, err := env.Client()
			if err != nil {
				return err
			}
			if _, err := node.Packs.Remove(c.Context(), connect.NewRequest(&pb.RemovePackRequest{Name: args[0]})); err != nil {
				return err
			}
			fmt.Fprintf(env.Out, "pack/%s removed\n", args[0])
			return nil
		},
	}
}
