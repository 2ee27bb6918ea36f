package main

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"oscine.dev/oscine/internal/linux"
	"oscine.dev/oscine/internal/release"
)

const (
	// pulsePause is how often init hears that the daemon answers.
	pulsePause = 5 * time.Second
	// slowAnswer is when the log says that it does not.
	slowAnswer = 15 * time.Second
	// startLimit is how long the daemon may start without an API.
	startLimit = 10 * time.Minute
)

// pulse is the daemon's sign of life for init: it is sent after the daemon has
// proved that it answers, and only then. A daemon that hangs somewhere sends
// none, and init aborts it, which prints what every goroutine waits for.
type pulse struct {
	log *slog.Logger

	mu    sync.Mutex
	proof func(context.Context) error
}

// provenBy changes the proof. One that hangs is the same as one that fails.
func (p *pulse) provenBy(proof func(context.Context) error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.proof = proof
}

// starting asks for no proof for as long as a start may take.
func (p *pulse) starting() {
	began := time.Now()
	p.provenBy(func(context.Context) error {
		if time.Since(began) > startLimit {
			return errors.New("the daemon is starting, but has no API yet")
		}
		return nil
	})
}

// run sends signs until ctx ends, or returns at once where nobody wants them.
func (p *pulse) run(ctx context.Context) error {
	tick := time.NewTicker(pulsePause)
	defer tick.Stop()
	for {
		if err := p.beat(ctx, slowAnswer); ctx.Err() != nil {
			return nil
		} else if err != nil {
			p.log.Error("no sign of life is sent to init", "error", err)
		} else if err := notify(release.Notification{Watchdog: true}); errors.Is(err, linux.ErrNoSupervisor) {
			return nil
		} else if err != nil {
			p.log.Warn("cannot tell init that the daemon lives", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// beat returns nil once the daemon has proved that it answers. It waits for the
// proof until ctx ends and says so in the log when that takes long.
func (p *pulse) beat(ctx context.Context, slow time.Duration) error {
	p.mu.Lock()
	proof := p.proof
	p.mu.Unlock()
	proved := make(chan error, 1)
	go func() { proved <- proof(ctx) }()
	timer := time.NewTimer(slow)
	defer timer.Stop()
	for {
		select {
		case err := <-proved:
			return err
		case <-timer.C:
			p.log.Error("the API does not answer the daemon itself", "for", slow)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
