package network

import (
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/beevik/ntp"
)

// serveTime is a time server on the loopback address whose clock is off by
// offset; it fails its clients with stratum 0 when refuse is set.
func serveTime(t *testing.T, offset time.Duration, refuse bool) string {
	t.Helper()
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { conn.Close() })
	go func() {
		request := make([]byte, 512)
		for {
			size, from, err := conn.ReadFrom(request)
			if err != nil {
				return
			}
			if size < 48 {
				continue
			}
			now := time.Now().Add(offset)
			reply := make([]byte, 48) // RFC 5905, 7.3
			reply[0], reply[1] = 4<<3|4, 1
			if refuse {
				reply[1] = 0
				copy(reply[12:], "RATE")
			}
			copy(reply[24:32], request[40:48])
			for _, at := range []int{16, 32, 40} {
				putTime(reply[at:], now)
			}
			if _, err := conn.WriteTo(reply, from); err != nil {
				return
			}
		}
	}()
	return conn.LocalAddr().String()
}

func putTime(b []byte, t time.Time) {
	const from1900to1970 = 2208988800
	binary.BigEndian.PutUint32(b, uint32(t.Unix()+from1900to1970))
	binary.BigEndian.PutUint32(b[4:], uint32(uint64(t.Nanosecond())<<32/1e9))
}

func TestClockFollowsAServer(t *testing.T) {
	c := newClock(slog.New(slog.DiscardHandler))
	adjusted := make(chan time.Duration, 1)
	c.adjust = func(offset, _ time.Duration) error { adjusted <- offset; return nil }
	ctx, cancel := context.WithCancel(t.Context())
	online, ended := make(chan struct{}), make(chan struct{})
	server := serveTime(t, time.Hour, false)
	refusing := serveTime(t, 0, true)
	go func() { c.run(ctx, online, func() []string { return []string{refusing, server} }); close(ended) }()
	select {
	case <-adjusted:
		t.Fatal("clock was corrected before the node was online")
	case <-time.After(20 * time.Millisecond):
	}
	close(online)
	select {
	case got := <-adjusted:
		if (got - time.Hour).Abs() > time.Second {
			t.Errorf("correction: got %s, want 1h", got)
		}
	case <-time.After(20 * time.Second):
		t.Error("clock was not corrected within 20 s")
	}
	cancel()
	<-ended
	if s := c.State(); !s.Synchronised || s.Server != server || s.Err != nil {
		t.Errorf("state: got %+v, want synchronised to %s", s, server)
	}
}

func TestClockWithoutAnyServer(t *testing.T) {
	c := newClock(slog.New(slog.DiscardHandler))
	c.adjust = func(time.Duration, time.Duration) error { t.Error("clock was corrected"); return nil }
	if _, err := c.check([]string{serveTime(t, 0, true)}, minPoll); !errors.Is(err, ntp.ErrKissOfDeath) {
		t.Errorf("refusing server: got %v, want a kiss of death", err)
	}
	if s := c.State(); s.Synchronised || s.Err == nil {
		t.Errorf("state: got %+v, want not synchronised with a reason", s)
	}
}
