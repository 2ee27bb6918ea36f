package core

import (
	"context"
	"errors"
	"fmt"
	"time"

	"oscine.dev/oscine/internal/serve/channel"
)

// Pauses before a worker is started again, and how long one must live to be
// counted as sound.
const (
	firstPause = 100 * time.Millisecond
	lastPause  = 10 * time.Second
	soundAfter = 10 * time.Second
)

// life is that of one worker.
type life struct {
	in     *instance
	worker Worker
	conn   *channel.Conn // once it is ready
	over   chan struct{} // closed when the worker has ended
	err    error         // how, once over is closed
}

// ended waits for a worker's end, as long as ctx allows.
func (l *life) ended(ctx context.Context) bool {
	select {
	case <-l.over:
		return true
	case <-ctx.Done():
		return false
	}
}

// outOfMemory reports whether a worker that just failed ended because it needed
// more memory than it may have.
func (l *life) outOfMemory() bool {
	select {
	case <-l.over:
		return errors.Is(l.err, ErrMemory)
	case <-time.After(lastWords):
		return false
	}
}

// supervise keeps a worker alive until the model is stopped or the worker
// refuses it.
func (in *instance) supervise() {
	m := in.m
	pause, why := firstPause, ""
	for first := true; m.ctx.Err() == nil; first = false {
		if m.demand != nil && !(first && m.Loading.Now) && !in.awaitDemand(why) {
			break
		}
		begin := time.Now()
		err := in.run()
		if why = ""; errors.Is(err, errUnloaded) {
			pause = firstPause
			continue
		}
		var refused *channel.ModelError
		if errors.As(err, &refused) {
			in.set(Failed, refused.Text, nil)
			if m.demand != nil {
				in.rested()
			}
			<-m.ctx.Done()
			break
		}
		if time.Since(begin) > soundAfter {
			pause = firstPause
		}
		why = err.Error()
		in.set(Waiting, why, nil)
		select {
		case <-m.ctx.Done():
		case <-in.unload: // nobody needs it any more
		case <-time.After(pause):
		}
		pause = min(2*pause, lastPause)
	}
	in.set(Failed, "the model is served no more", nil)
}

// run is one worker's life, from its start to its end. The error says why it
// ended.
func (in *instance) run() error {
	m := in.m
	in.set(Starting, "", nil)
	worker, err := in.Starter.Start(m.ctx)
	if err != nil {
		return fmt.Errorf("start the worker: %w", err)
	}
	m.mu.Lock()
	in.starts++
	m.mu.Unlock()
	select {
	case <-in.kills: // was meant for an earlier worker
	default:
	}
	l := &life{in: in, worker: worker, over: make(chan struct{})}
	go func() {
		l.err = worker.Wait()
		m.forgetMemory()
		close(l.over)
	}()

	accepting, stopAccepting := context.WithCancel(m.ctx)
	defer stopAccepting()
	loading, stopLoading := context.WithCancel(m.ctx)
	defer stopLoading()
	type connected struct {
		conn *channel.Conn
		err  error
	}
	ready := make(chan connected, 1)
	go func() {
		conn, err := in.connect(accepting, loading, worker)
		ready <- connected{conn, err}
	}()
	select {
	case <-l.over:
		stopAccepting()
		defer time.AfterFunc(lastWords, stopLoading).Stop()
		d := <-ready
		if d.err == nil {
			_ = d.conn.Close() // it ended just as it had become ready
		} else if errors.As(d.err, new(*channel.ModelError)) {
			return d.err // it ended because it refuses the model
		}
		return endedError(l.err)
	case <-in.unload:
		err := l.unload()
		stopAccepting()
		stopLoading()
		if d := <-ready; d.err == nil {
			_ = d.conn.Close()
		}
		return err
	case d := <-ready:
		if d.err != nil {
			l.killUntilEnd()
			return d.err
		}
		defer d.conn.Close()
		m.metrics.loads.Add(1)
		l.conn = d.conn
		in.set(Ready, "", l)
	}
	if m.demand != nil {
		stop := make(chan struct{})
		defer close(stop)
		go m.unneeded(stop)
	}
	select {
	case <-in.unload:
		return l.unload()
	case <-l.over:
		return endedError(l.err)
	case <-in.kills:
		return endedError(l.killUntilEnd())
	case <-m.ctx.Done():
		l.killUntilEnd()
		return m.ctx.Err()
	}
}

// unload ends a worker that nobody needs.
func (l *life) unload() error {
	m := l.in.m
	if l.killUntilEnd(); m.ctx.Err() != nil {
		return m.ctx.Err()
	}
	m.mu.Lock()
	l.in.unloads++
	m.mu.Unlock()
	return errUnloaded
}

// killUntilEnd kills the worker, again and again should that fail, until it has
// ended, and returns how. A worker that is to outlive this daemon is left alone.
func (l *life) killUntilEnd() error {
	in, m := l.in, l.in.m
	for pause := firstPause; m.ctx.Err() == nil || m.killOnStop(); pause = min(2*pause, lastPause) {
		err := l.worker.Kill()
		if err != nil {
			in.set(Waiting, fmt.Sprintf("the worker cannot be killed: %v", err), nil)
		}
		m.mu.Lock()
		in.unkilled = err
		m.mu.Unlock()
		var leave <-chan struct{}
		if m.ctx.Err() == nil {
			leave = m.ctx.Done()
		}
		select {
		case <-l.over:
			return l.err
		case <-time.After(pause):
		case <-leave:
		}
	}
	return m.ctx.Err()
}

func endedError(err error) error {
	if err == nil {
		return errors.New("the worker ended")
	}
	return fmt.Errorf("the worker ended: %w", err)
}

// lastWords bounds how long what a worker said before it ended is waited for.
const lastWords = time.Second

// connect waits for the worker's connection and has it load the model, which
// may take as long as it takes: the worker's end cuts it short, once what it
// said before is read. While the worker is connected nobody listens.
func (in *instance) connect(accepting, loading context.Context, worker Worker) (*channel.Conn, error) {
	l, err := channel.Listen(worker.Socket())
	if err != nil {
		return nil, fmt.Errorf("listen for the worker: %w", err)
	}
	defer l.Close()
	conn, err := l.Accept(accepting, worker.Owns)
	if err != nil {
		return nil, err
	}
	if err = conn.Load(loading, worker.Load()); err == nil {
		err = in.adopt(conn)
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

// adopt gives the connection the model's shared memory, making it at the first
// time.
func (in *instance) adopt(conn *channel.Conn) error {
	mem, err := in.m.learn(conn.Metadata())
	if err != nil {
		return err
	}
	mem.renew()
	if err := conn.Share(mem.region); err != nil {
		return err
	}
	in.makeUrgent(conn.Threads)
	return nil
}
