package cli

import (
	"context"
	"fmt"
	"io"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	pb "oscine.dev/oscine/internal/api/oscinepb"
	"oscine.dev/oscine/internal/client"
	"oscine.dev/oscine/internal/demo"
	"oscine.dev/oscine/internal/object"
)

func newDemoCommand(env *Env) *cobra.Command {
	o := demo.Options{Out: env.Out}
	c := &cobra.Command{
		Use:   "demo",
		Short: "Boot a machine, serve the digit reader on it and have it read 500 pictures",
		Long: `Build what is missing of image and engine pack, boot a machine in QEMU, serve the digit
reader on it, send it pictures of digits in fonts that it never saw, and say what came of it.
It needs the source of Oscine, and neither root nor KVM.`,
		Args: exactArgs(0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			if o.Count < 1 {
				return usageError{fmt.Errorf("--pictures %d: at least one is sent", o.Count)}
			}
			if o.Report != "" {
				if err := checkOutput("out", o.Report); err != nil {
					return err
				}
			}
			o.Tools = demo.Tools{Generate: generateQuietly, Connect: connectTo, Install: installQuietly, Serve: serveQuietly, ServeLanguage: serveLanguageQuietly, Upgrade: upgradeQuietly}
			if isTerminal(env.Out) && isTerminal(env.Err) {
				o.Wait = func(text string) (func(string), func()) {
					w := newWaiting(env, text)
					return w.tell, w.done
				}
			}
			return demo.Run(c.Context(), o)
		},
	}
	f := c.Flags()
	f.BoolVar(&o.Keep, "keep", false, "leave the machine running and say how to go on")
	f.BoolVar(&o.Upgrade, "upgrade", false, "also upgrade the machine to a second release, and to a broken one that it rolls back")
	f.BoolVar(&o.Chat, "chat", false, "also serve a language model and chat with it")
	f.StringVar(&o.Report, "out", "", "file for the figures (default out/demo.json)")
	f.StringVar(&o.Source, "source", ".", "checkout of Oscine")
	f.StringVar(&o.Arch, "arch", "", "architecture of the machine, amd64 or arm64 (default this one's)")
	f.StringVar(&o.Accel, "accel", "", "kvm or tcg (emulation); default kvm where it really boots")
	f.BoolVar(&o.Direct, "direct", false, "start the kernel without firmware and boot loader")
	f.IntVar(&o.Count, "pictures", demo.Pictures, "how many pictures to send")
	return c
}

// quietly is an environment for commands that the demo uses: its own client
// configuration, and no output but errors.
func quietly(config string) *Env {
	return &Env{Out: io.Discard, Err: io.Discard, ConfigPath: config, Kinds: object.Kinds()}
}

func generateQuietly(config, dir, name, address string) error {
	return generateConfig(quietly(config), name, generateOptions{dir: dir, address: address, withKey: true, port: defaultPort})
}

func connectTo(config, name string) (*client.Client, error) {
	env := quietly(config)
	env.Context = name
	return env.Client()
}

func installQuietly(ctx context.Context, node *client.Client, file string) error {
	_, err := installPack(ctx, quietly(""), node, file)
	return err
}

func serveQuietly(ctx context.Context, node *client.Client, file, name string) (*object.ModelStatus, error) {
	o := serveOptions{name: name, wait: 5 * time.Minute}
	source, err := findModel(file)
	if err != nil {
		return nil, err
	}
	return o.serve(ctx, quietly(""), node, source)
}

func upgradeQuietly(ctx context.Context, node *client.Client, source, version string, deadline time.Duration) (reason string, err error) {
	req := &pb.StartUpgradeRequest{Source: source, To: version, GateSeconds: int64(deadline.Seconds())}
	resp, err := node.Upgrades.Start(ctx, connect.NewRequest(req))
	if err != nil {
		return "", err
	}
	u, err := followUpgrade(ctx, node, resp.Msg.Upgrade.Number, time.Hour, func(*pb.Upgrade) {})
	if err != nil || u.Stage == stageGood {
		return "", err
	}
	if u.FailedStage != "trial" {
		return "", upgradeOutcome(quietly(""), u)
	}
	return u.Message, nil
}

func serveLanguageQuietly(ctx context.Context, node *client.Client, file, name string) (*object.ModelStatus, error) {
	o := serveOptions{name: name, wait: 15 * time.Minute, options: map[string]string{"slots": "1", "context": "1024"}}
	if err := o.planMemory(file, io.Discard); err != nil {
		return nil, err
	}
	source, err := findModel(file)
	if err != nil {
		return nil, err
	}
	return o.serve(ctx, quietly(""), node, source)
}
