package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

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
	b := bench.Boot{Arch: runtime.GOARCH, Runs: 3}
	var output *string
	c := &cobra.Command{
		Use:   "boot",
		Short: "Measure boot time by stage, and compare with a minimal Debian in the same QEMU",
		Long: `Boot Oscine's image, directly and by UEFI, and print the processor time of QEMU
and the instructions that each stage takes until the API answers. Beside it boot
a minimal Debian 13 with systemd, containerd and nginx, and compare the processor
time until each answers over the network, and the memory that each needs when
idle. The Debian is installed into the cache on first use, which needs root and
some minutes. Clock time is not measured: it depends on what else this computer
does.`,
		Example: `  oscine bench boot --image out/oscine-amd64.img
  oscine bench boot --image out/oscine-arm64.img --arch arm64 --alone --runs 1`,
		Args: exactArgs(0, "no argument"),
		RunE: func(c *cobra.Command, _ []string) error {
			if err := checkRuns(b.Runs); err != nil {
				return err
			}
			report, err := benchBoot(c.Context(), env, b)
			if err != nil {
				return err
			}
			if *output == outputTable {
				return report.Write(env.Out)
			}
			return writeDocument(env.Out, report, *output)
		},
	}
	c.Flags().StringVar(&b.Image, "image", "", "disk image to measure (oscine image build makes one)")
	c.Flags().StringVar(&b.Arch, "arch", b.Arch, "architecture of the image, amd64 or arm64")
	c.Flags().IntVar(&b.Runs, "runs", b.Runs, "boots of each system; the median counts")
	c.Flags().BoolVar(&b.Alone, "alone", false, "without the Debian, which is only there for this computer's architecture")
	output = addReportOutput(c)
	return c
}

func checkRuns(runs int) error {
	if runs < 1 {
		return usageError{fmt.Errorf("--runs %d: at least one boot is needed", runs)}
	}
	return nil
}

func benchBoot(ctx context.Context, env *Env, b bench.Boot) (bench.BootReport, error) {
	if b.Image == "" {
		return bench.BootReport{}, usageError{errors.New("--image FILE is needed: make one with oscine image build")}
	}
	if b.Arch != runtime.GOARCH && !b.Alone {
		return bench.BootReport{}, usageError{fmt.Errorf("--arch %s: the Debian to compare with is there for %s only: add --alone", b.Arch, runtime.GOARCH)}
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
	config, err := machineManifest(authority, name, []string{"127.0.0.1"}, nil, 0, true)
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
	b.Config, b.Dir, b.Log, b.Memory = config, dir, env.Err, memory
	return b.Run(ctx)
}
