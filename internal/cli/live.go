package cli

import (
	"context"
	"errors"
	"sync"
	"time"

	"connectrpc.com/connect"

	pb "oscine.dev/oscine/internal/api/oscinepb"
	"oscine.dev/oscine/internal/client"
	"oscine.dev/oscine/internal/hardware"
)

// hardwareWatch follows a machine, local or remote, as [hardware.Live.Follow].
type hardwareWatch func(ctx context.Context, every time.Duration, f func(hardware.News) error) error

// watching chooses what is watched: the machine under root, the context's
// node, or this machine where there is no context. It returns what to call it.
func watching(env *Env, root string) (string, hardwareWatch, error) {
	if root != "" {
		if root == "/" {
			return "this machine", watchRoot(root), nil
		}
		return root, watchRoot(root), rootIsThere("--root", root)
	}
	name, _, err := env.context()
	if env.Context == "" && errors.Is(err, client.ErrNoContext) {
		return "this machine", watchRoot("/"), nil
	}
	if err != nil {
		return "", nil, err
	}
	node, err := env.Client()
	return name, watchNode(node), err
}

// watchNode watches the node of a context.
func watchNode(node *client.Client) hardwareWatch {
	return func(ctx context.Context, every time.Duration, f func(hardware.News) error) error {
		stream, err := node.Hardware.Watch(ctx, connect.NewRequest(&pb.WatchHardwareRequest{LoadSeconds: every.Seconds()}))
		if err != nil {
			return unlessLeft(ctx, err)
		}
		defer stream.Close()
		for stream.Receive() {
			news, err := client.HardwareNews(stream.Msg())
			if err == nil {
				err = f(news)
			}
			if err != nil {
				return err
			}
		}
		return unlessLeft(ctx, stream.Err())
	}
}

// healthInterval is how often devices are looked at that announce nothing.
const healthInterval = 2 * time.Second

// watchRoot watches this machine, or reads one that is stored.
func watchRoot(root string) hardwareWatch {
	return func(outer context.Context, every time.Duration, f func(hardware.News) error) error {
		ctx, stop := context.WithCancelCause(outer)
		live := hardware.NewLive(root, loadAsker(ctx, root))
		var wg sync.WaitGroup
		wg.Go(func() { stop(hardware.Watch(ctx, root, healthInterval, live.Set)) })
		err := live.Follow(ctx, every, f)
		if err == nil && outer.Err() == nil {
			err = context.Cause(ctx) // of the watch
		}
		stop(nil)
		wg.Wait()
		return errors.Join(err, live.Close())
	}
}

// loadAsker asks the helpers that come with Oscine for the load of this
// machine's devices: their drivers do not show it in sysfs.
func loadAsker(ctx context.Context, root string) func(*hardware.Machine) map[string]hardware.DeviceLoad {
	if root != "/" {
		return nil
	}
	var drivers []hardware.Driver
	return func(m *hardware.Machine) map[string]hardware.DeviceLoad {
		if drivers == nil {
			if own, err := m.Clone(); err == nil {
				drivers, _ = hardware.AskDrivers(ctx, own, hardware.Companions(own)...) // ends with ctx
			}
		}
		return hardware.AskLoads(ctx, m, drivers)
	}
}
