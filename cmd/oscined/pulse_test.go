package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestPulseNeedsProof: a lock that is never released keeps the sign of life
// from init.
func TestPulseNeedsProof(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	init, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer init.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	signs := make(chan string, 10)
	go func() {
		buf := make([]byte, 100)
		for {
			n, err := init.Read(buf)
			if err != nil {
				return
			}
			signs <- string(buf[:n])
		}
	}()
	for _, dead := range []bool{false, true} {
		var mu sync.Mutex
		if dead {
			mu.Lock()
			defer mu.Unlock()
		}
		p := &pulse{log: slog.New(slog.DiscardHandler)}
		p.provenBy(func(context.Context) error {
			mu.Lock()
			defer mu.Unlock()
			return nil
		})
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		if err := p.run(ctx); err != nil {
			t.Error(err)
		}
		cancel()
		select {
		case got := <-signs:
			if got != "WATCHDOG=1" || dead {
				t.Errorf("deadlocked %t: init heard %q", dead, got)
			}
		case <-time.After(200 * time.Millisecond):
			if !dead {
				t.Error("init heard nothing of a daemon that answers")
			}
		}
	}
}

func TestPulseWhileStarting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &pulse{log: slog.New(slog.DiscardHandler)}
		p.starting()
		if err := p.beat(t.Context(), time.Second); err != nil {
			t.Errorf("at the start: %v", err)
		}
		time.Sleep(startLimit + time.Second)
		if err := p.beat(t.Context(), time.Second); err == nil {
			t.Error("a start without end is taken for life")
		}
		said := errors.New("no")
		p.provenBy(func(context.Context) error { return said })
		if err := p.beat(t.Context(), time.Second); !errors.Is(err, said) {
			t.Errorf("got %v", err)
		}
	})
}

func TestSlowAnswerIsLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var text strings.Builder
		p := &pulse{log: slog.New(slog.NewTextHandler(&text, nil))}
		p.provenBy(func(context.Context) error { time.Sleep(time.Minute); return nil })
		if err := p.beat(t.Context(), time.Second); err != nil || !strings.Contains(text.String(), "does not answer") {
			t.Errorf("got %v, %q", err, text.String())
		}
	})
}
