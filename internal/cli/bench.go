package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"oscine.dev/oscine/internal/api/oscinepb"
	"oscine.dev/oscine/internal/bench"
	"oscine.dev/oscine/internal/client"
	"oscine.dev/oscine/internal/debian"
	"oscine.dev/oscine/internal/pki"
)

func newBenchCommand(env *Env) *cobra.Command {
	c := &cobra.Command{Use: "bench", Short: "Measure Oscine against its peers"}
	c.AddCommand(newBenchBootCommand(env), newBenchServeCommand(env), newBenchLatencyCommand(env), newBenchLatencyChildCommand(env))
	return c
}

func newBenchBootCommand(env *Env) *cobra.Command {
	var file string
	var output *string
	runs := 3
	c := &cobra.Command{
		Use:   "boot",
		Short: "Compare boot time and memory with a minimal Debian in the same QEMU",
		Long: `Boot Oscine's image and a minimal Debian 13 with systemd, containerd and nginx
in turn, and compare the processor time that QEMU spends until each answers over
the network, and the memory that each needs when idle. The Debian is installed
into the cache on first use, which needs root and some minutes.`,
		Example: "  oscine bench boot --image out/oscine-amd64.img",
		Args:    exactArgs(0, "no argument"),
		RunE: func(c *cobra.Command, _ []string) error {
			if err := checkRuns(runs); err != nil {
				return err
			}
			report, err := benchBoot(c.Context(), env, file, runs)
			if err != nil {
				return err
			}
			if *output == outputTable {
				return report.Write(env.Out)
			}
			return writeDocument(env.Out, report, *output)
		},
	}
	c.Flags().StringVar(&file, "image", "", "disk image to measure (oscine image build makes one)")
	c.Flags().IntVar(&runs, "runs", runs, "boots of each system")
	output = addReportOutput(c)
	return c
}

func checkRuns(runs int) error {
	if runs < 1 {
		return usageError{fmt.Errorf("--runs %d: at least one boot is needed", runs)}
	}
	return nil
}

func benchBoot(ctx context.Context, env *Env, file string, runs int) (bench.BootReport, error) {
	if file == "" {
		return bench.BootReport{}, usageError{errors.New("--image FILE is needed: make one with oscine image build")}
	}
	cache, err := debian.CacheDir()
	if err != nil {
		return bench.BootReport{}, err
	}
	dir := filepath.Join(cache, "bench")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return bench.BootReport{}, err
	}
	const name = "bench"
	authority, err := pki.NewAuthority(name)
	if err != nil {
		return bench.BootReport{}, err
	}
	config, err := machineManifest(authority, name, []string{"127.0.0.1"}, nil, true)
	if err != nil {
		return bench.BootReport{}, err
	}
	reader, err := pki.NewClient(authority, name, pki.Reader, pki.ClientLifetime)
	if err != nil {
		return bench.BootReport{}, err
	}
	memory := func(ctx context.Context, address string) (int64, error) {
		node, err := client.New(&client.Context{
			Address: address, ServerName: name,
			CA: string(authority.Certificate), Certificate: string(reader.Certificate), Key: string(reader.Key),
		})
		if err != nil {
			return 0, err
		}
		info, err := node.Node.Info(ctx, connect.NewRequest(&oscinepb.InfoRequest{}))
		if err != nil {
			return 0, err
		}
		return info.Msg.GetSystemMemoryBytes(), nil
	}
	return bench.Boot{Image: file, Config: config, Runs: runs, Dir: dir, Log: env.Err, Memory: memory}.Run(ctx)
}
