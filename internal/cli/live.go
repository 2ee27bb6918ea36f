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

// hardwareNews is the map of a machine, with the changes that led to it, or
// its load.
type hardwareNews struct {
	machine *hardware.Machine
	changes []hardware.Change
	load    *hardware.Load
}

// hardwareWatch calls f with the map of a machine, with every change and,
// where every is not 0, with the load, until ctx ends, which is no error, or f
// fails.
type hardwareWatch func(ctx context.Context, every time.Duration, f func(hardwareNews) error) error

// watching chooses what is watched: the machine under root, the context's
// node, or this machine where there is no context. It returns what to call it.
func watching(env *Env, root string) (string, hardwareWatch, error) {
	if root != "" {
		if root == "/" {
			return "this machine", watchRoot(root), nil
		}
		return root, watchRoot(root), rootIsThere(root)
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
	return func(ctx context.Context, every time.Duration, f func(hardwareNews) error) error {
		stream, err := node.WatchHardware(ctx, connect.NewRequest(&pb.WatchHardwareRequest{LoadSeconds: every.Seconds()}))
		if err != nil {
			return unlessLeft(ctx, err)
		}
		defer stream.Close()
		for stream.Receive() {
			news, err := newsOf(stream.Msg())
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

func newsOf(m *pb.WatchHardwareResponse) (news hardwareNews, err error) {
	if len(m.Json) > 0 {
		if news.machine, err = hardware.Decode(m.Json); err != nil {
			return news, err
		}
	}
	for _, c := range m.Changes {
		news.changes = append(news.changes, hardware.Change{Device: c.Device, What: c.What, Reason: hardware.ChangeReason(c.Reason), Warning: c.Warning})
	}
	if l := m.Load; l != nil {
		news.load = &hardware.Load{CPUs: map[int]float64{}, Used: map[int]hardware.Bytes{}, Devices: map[string]hardware.DeviceLoad{}}
		for id, share := range l.Cpus {
			news.load.CPUs[int(id)] = float64(share)
		}
		for id, used := range l.UsedBytes {
			news.load.Used[int(id)] = hardware.Bytes(used)
		}
		for id, d := range l.Devices {
			news.load.Devices[id] = hardware.DeviceLoad{Busy: d.Busy, Used: hardware.Bytes(d.UsedBytes), Celsius: d.Celsius, Watts: d.Watts}
		}
		for _, z := range l.Thermal {
			news.load.Thermal = append(news.load.Thermal, hardware.Zone{Name: z.Name, Celsius: z.Celsius})
		}
	}
	return news, nil
}

// healthInterval is how often devices are looked at that announce nothing.
const healthInterval = 2 * time.Second

// watchRoot watches this machine, or reads one that is stored.
func watchRoot(root string) hardwareWatch {
	return func(ctx context.Context, every time.Duration, f func(hardwareNews) error) error {
		s, err := hardware.NewSampler(root)
		if err != nil {
			return err
		}
		defer s.Close()
		var wg sync.WaitGroup
		defer wg.Wait()
		ctx, stop := context.WithCancel(ctx)
		defer stop()
		l := &localWatch{sampler: s, f: f, news: make(chan hardwareNews), ended: make(chan error, 1)}
		wg.Go(func() { l.ended <- hardware.Watch(ctx, root, healthInterval, l.pass(ctx)) })
		if root == "/" && every > 0 {
			wg.Go(func() { l.askDrivers(ctx) })
		}
		return l.run(ctx, every)
	}
}

// localWatch brings the map and the load of this machine together.
type localWatch struct {
	sampler *hardware.Sampler
	f       func(hardwareNews) error
	news    chan hardwareNews
	ended   chan error

	mu   sync.Mutex
	m    *hardware.Machine
	told map[string]hardware.DeviceLoad // by NVIDIA's program
}

// pass hands the watcher's maps to run.
func (l *localWatch) pass(ctx context.Context) func(*hardware.Machine, []hardware.Change) {
	return func(m *hardware.Machine, changes []hardware.Change) {
		select {
		case l.news <- hardwareNews{machine: m, changes: changes}:
		case <-ctx.Done():
		}
	}
}

func (l *localWatch) run(ctx context.Context, every time.Duration) error {
	var ticks <-chan time.Time
	var before hardware.Reading
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-l.ended:
			return err
		case news := <-l.news:
			l.mu.Lock()
			l.m = news.machine
			l.mu.Unlock()
			if err := l.f(news); err != nil {
				return err
			}
			if ticks == nil && every > 0 {
				before = l.sampler.Read(l.m, nil)
				ticker := time.NewTicker(every)
				defer ticker.Stop()
				ticks = ticker.C
			}
		case <-ticks:
			_, told := l.now()
			now := l.sampler.Read(l.m, told)
			load := now.Since(before)
			before = now
			if err := l.f(hardwareNews{load: &load}); err != nil {
				return err
			}
		}
	}
}

func (l *localWatch) now() (*hardware.Machine, map[string]hardware.DeviceLoad) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.m, l.told
}

// askDrivers asks the helpers that come with Oscine for the load of their
// devices every two seconds: such drivers show nothing of it in sysfs.
func (l *localWatch) askDrivers(ctx context.Context) {
	var drivers []hardware.Driver
	for ctx.Err() == nil {
		m, _ := l.now()
		if m != nil && drivers == nil {
			if own, err := m.Clone(); err == nil {
				drivers, _ = hardware.AskDrivers(ctx, own, hardware.Companions(own)...) // ends with ctx
			}
		}
		if m != nil && drivers != nil {
			told := hardware.AskLoads(ctx, m, drivers)
			l.mu.Lock()
			l.told = told
			l.mu.Unlock()
		}
		select {
		case <-time.After(2 * time.Second):
		case <-ctx.Done():
		}
	}
}
