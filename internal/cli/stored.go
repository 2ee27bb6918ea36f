package cli

import (
	"fmt"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	pb "oscine.dev/oscine/internal/api/oscinepb"
	"oscine.dev/oscine/internal/printable"
)

func newVolumeCommand(env *Env) *cobra.Command {
	c := &cobra.Command{Use: "volume", Short: "List and remove the volumes of workloads"}
	c.AddCommand(newVolumeListCommand(env), &cobra.Command{
		Use: "remove NAME", Aliases: []string{"rm"}, Short: "Delete a volume that no workload names, with all that is in it", Args: exactArgs(1, "NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			node, err := env.Client()
			if err != nil {
				return err
			}
			if _, err := node.Volumes.Remove(c.Context(), connect.NewRequest(&pb.RemoveVolumeRequest{Name: args[0]})); err != nil {
				return err
			}
			fmt.Fprintf(env.Out, "volume/%s removed\n", args[0])
			return nil
		},
	})
	return c
}

func newVolumeListCommand(env *Env) *cobra.Command {
	var output *string
	c := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List the node's volumes and what they hold", Args: exactArgs(0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			node, err := env.Client()
			if err != nil {
				return err
			}
			resp, err := node.Volumes.List(c.Context(), connect.NewRequest(&pb.ListVolumesRequest{}))
			if err != nil {
				return err
			}
			return listOf(resp.Msg.Volumes, (*pb.Volume).GetName, "NAME\tUSED\tFILES\tOBJECTS", func(v *pb.Volume, _ bool) string {
				return fmt.Sprintf("%s\t%s\t%d\t%s", orDash(v.Name), printable.Bytes(v.UsedBytes), v.Files, orDash(strings.Join(v.Objects, ",")))
			}).print(env.Out, *output)
		},
	}
	output = addOutput(c)
	return c
}

func newModelCommand(env *Env) *cobra.Command {
	c := &cobra.Command{
		Use: "model", Short: "Import, push, pull, verify and explain models, list and remove their files",
		Long: `Model files are stored on the node by digest. One that no Model refers to is removed
after an hour, or sooner where the disk is nearly full.`,
	}
	c.AddCommand(newModelListCommand(env), newModelExplainCommand(env), newModelPushCommand(env), newModelPullCommand(env), newModelImportCommand(env), newModelVerifyCommand(env), &cobra.Command{
		Use: "remove DIGEST", Aliases: []string{"rm"}, Short: "Remove a model file that no Model refers to, by its digest or at least 6 digits of that", Args: exactArgs(1, "DIGEST"),
		RunE: func(c *cobra.Command, args []string) error {
			node, err := env.Client()
			if err != nil {
				return err
			}
			resp, err := node.Models.Remove(c.Context(), connect.NewRequest(&pb.RemoveModelFileRequest{Digest: args[0]}))
			if err != nil {
				return err
			}
			fmt.Fprintf(env.Out, "%s removed\n", resp.Msg.Digest)
			return nil
		},
	})
	return c
}

func newModelListCommand(env *Env) *cobra.Command {
	var output *string
	c := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List the model files on the node", Args: exactArgs(0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			node, err := env.Client()
			if err != nil {
				return err
			}
			resp, err := node.Models.List(c.Context(), connect.NewRequest(&pb.ListModelFilesRequest{}))
			if err != nil {
				return err
			}
			return listOf(resp.Msg.Files, (*pb.ModelFile).GetDigest, "DIGEST\tSIZE\tUSED\tOBJECTS", func(f *pb.ModelFile, wide bool) string {
				users := f.Objects
				if f.Release != "" {
					users = append(users, "release "+f.Release)
				}
				return fmt.Sprintf("%s\t%s\t%s ago\t%s", shortDigest(f.Digest, wide), printable.Bytes(f.SizeBytes), time.Since(f.Used.AsTime()).Round(time.Second), orDash(strings.Join(users, ",")))
			}).print(env.Out, *output)
		},
	}
	output = addOutput(c)
	return c
}
