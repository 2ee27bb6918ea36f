package network

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/beevik/ntp"
	"golang.org/x/sys/unix"
)

const (
	// maxSlew is the offset up to which the clock is drawn towards the right
	// time; beyond, it would take minutes and the clock is set. The kernel
	// refuses more than 0.5 s.
	maxSlew = 400 * time.Millisecond

	minPoll = 64 * time.Second
	maxPoll = 2048 * time.Second

	queryTimeout = 4 * time.Second
	maxAsked     = 4 // servers per round
)

// ClockState says how right the node's clock is.
type ClockState struct {
	Synchronised bool
	Server       string        // that was followed last
	Offset       time.Duration // of the clock before its last correction
	Checked      time.Time     // when; zero for never
	Err          error         // why it is not synchronised; nil when it is
}

// clock follows NTP servers (RFC 5905, client mode) and steers the kernel's
// clock. Of several servers it believes the one with the least distance to the
// reference; it does not vote out liars.
type clock struct {
	log    *slog.Logger
	query  func(server string) (*ntp.Response, error)
	adjust func(offset, poll time.Duration) error

	mu    sync.Mutex
	state ClockState
}

func newClock(log *slog.Logger) *clock {
	return &clock{log: log, query: queryNTP, adjust: steerKernel, state: ClockState{Err: errors.New("no time server was asked yet")}}
}

// State returns how right the clock is.
func (c *clock) State() ClockState {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state
}

// run checks the clock until ctx ends, from the moment online is closed.
func (c *clock) run(ctx context.Context, online <-chan struct{}, servers func() []string) {
	select {
	case <-ctx.Done():
		return
	case <-online:
	}
	poll, retry := minPoll, 2*time.Second
	told, right := false, false // a node may be offline for weeks: each change is logged once
	for {
		offset, err := c.check(servers(), poll)
		if err == nil && !right {
			c.log.Info("clock is synchronised", "server", c.State().Server, "offset", offset)
		}
		if err != nil && (right || !told) {
			c.log.Warn("check the clock", "error", err)
		}
		told, right = true, err == nil
		wait := poll
		switch {
		case err != nil:
			wait, retry = retry, min(2*retry, 5*time.Minute)
		case offset.Abs() > maxSlew:
			wait, poll, retry = 2*time.Second, minPoll, 2*time.Second // see whether the step was right
		case offset.Abs() > 10*time.Millisecond:
			poll, retry = minPoll, 2*time.Second
			wait = poll
		default:
			wait, retry = poll, 2*time.Second
			poll = min(2*poll, maxPoll)
		}
		if !pause(ctx, wait) {
			return
		}
	}
}

// check asks the servers once and corrects the clock.
func (c *clock) check(servers []string, poll time.Duration) (time.Duration, error) {
	server, best, err := c.best(servers)
	if err == nil {
		if err = c.adjust(best.ClockOffset, poll); err == nil && best.ClockOffset.Abs() > maxSlew {
			c.log.Info("clock set", "server", server, "offset", best.ClockOffset)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.state.Err = err
		if time.Since(c.state.Checked) > 2*maxPoll {
			c.state.Synchronised = false
		}
		return 0, err
	}
	c.state = ClockState{Synchronised: true, Server: server, Offset: best.ClockOffset, Checked: time.Now()}
	return best.ClockOffset, nil
}

// best asks the servers at the same time and takes the answer nearest to the
// reference clock.
func (c *clock) best(servers []string) (string, *ntp.Response, error) {
	servers = servers[:min(len(servers), maxAsked)]
	answers, errs := make([]*ntp.Response, len(servers)), make([]error, len(servers))
	var all sync.WaitGroup
	for i, s := range servers {
		all.Go(func() {
			answers[i], errs[i] = c.query(s)
			if errs[i] == nil {
				errs[i] = answers[i].Validate()
			}
			if errs[i] != nil {
				errs[i] = fmt.Errorf("time server %s: %w", s, errs[i])
			}
		})
	}
	all.Wait()
	best := -1
	for i := range servers {
		if errs[i] == nil && (best < 0 || answers[i].RootDistance < answers[best].RootDistance) {
			best = i
		}
	}
	if best < 0 {
		return "", nil, errors.Join(errs...)
	}
	return servers[best], answers[best], nil
}

func queryNTP(server string) (*ntp.Response, error) {
	return ntp.QueryWithOptions(server, ntp.QueryOptions{Timeout: queryTimeout})
}

// steerKernel hands an offset to the kernel's clock discipline; see
// adjtimex(2). Both ways tell the kernel that the clock is synchronised, so it
// also writes the real-time clock.
func steerKernel(offset, poll time.Duration) error {
	t := unix.Timex{Modes: unix.ADJ_STATUS | unix.ADJ_NANO | unix.ADJ_MAXERROR | unix.ADJ_ESTERROR, Status: unix.STA_PLL}
	if offset.Abs() > maxSlew {
		t.Modes |= unix.ADJ_SETOFFSET
		// With ADJ_NANO the field of the microseconds holds nanoseconds, and
		// they may not be negative.
		seconds := offset.Truncate(time.Second)
		if seconds > offset {
			seconds -= time.Second
		}
		t.Time = unix.Timeval{Sec: int64(seconds / time.Second), Usec: int64(offset - seconds)}
	} else {
		t.Modes |= unix.ADJ_OFFSET | unix.ADJ_TIMECONST
		t.Offset = int64(offset)
		for poll > 16*time.Second { // the kernel's unit: log2 of seconds, less 4
			poll /= 2
			t.Constant++
		}
	}
	if _, err := unix.Adjtimex(&t); err != nil {
		return explain(err, "adjustable clock", fmt.Sprintf("correct the clock by %s", offset))
	}
	return nil
}
