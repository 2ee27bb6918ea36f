package workload

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"oscine.dev/oscine/internal/object"
)

// server answers with the status that its variable holds.
func server(t *testing.T, status *atomic.Int32) (netip.Addr, int) {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(int(status.Load())) }))
	t.Cleanup(s.Close)
	addr, err := netip.ParseAddrPort(s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return addr.Addr(), int(addr.Port())
}

func TestHealthEndsAfterRetries(t *testing.T) {
	var status atomic.Int32
	status.Store(http.StatusOK)
	addr, port := server(t, &status)
	check := &healthCheck{addr: addr, Health: object.Health{
		HTTP:     &object.HTTPCheck{Path: "/", Port: port},
		Interval: object.Duration(time.Millisecond), Timeout: object.Duration(time.Second), Retries: 3,
	}}
	var told []string
	err := check.watch(t.Context(), func(healthy bool, problem error) {
		told = append(told, fmt.Sprint(healthy))
		status.Store(http.StatusInternalServerError)
	})
	if got := fmt.Sprint(told); got != "[true false false]" {
		t.Errorf("told %s, want healthy once, then two failures before the last", got)
	}
	if err == nil {
		t.Error("got no error, want the last problem")
	}
}

func TestHealthForgivesAStart(t *testing.T) {
	calls := 0
	check := &healthCheck{
		Health: object.Health{
			Exec: []string{"check"}, Interval: object.Duration(time.Millisecond), Timeout: object.Duration(time.Second),
			Retries: 1, StartPeriod: object.Duration(time.Hour),
		},
		exec: func(context.Context, []string) (int, error) {
			if calls++; calls < 5 {
				return 1, nil
			}
			return 0, nil
		},
	}
	ctx, cancel := context.WithCancel(t.Context())
	err := check.watch(ctx, func(healthy bool, _ error) {
		if !healthy {
			t.Error("a failure within the start period was told")
		}
		cancel()
	})
	if !errors.Is(err, context.Canceled) || calls != 5 {
		t.Errorf("got %v after %d checks, want success at the fifth", err, calls)
	}
}
