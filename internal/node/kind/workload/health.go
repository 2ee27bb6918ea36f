package workload

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"oscine.dev/oscine/internal/object"
)

// healthCheck asks a workload whether it works.
type healthCheck struct {
	object.Health
	addr netip.Addr
	log  *slog.Logger
	exec func(ctx context.Context, command []string) (int, error)
}

// watch reports each change of health to told and returns the last problem
// once Retries checks in a row have failed. Failures within StartPeriod of the
// call don't count before the first success.
func (h *healthCheck) watch(ctx context.Context, told func(healthy bool, problem error)) error {
	began, succeeded, failures, known := time.Now(), false, 0, false
	for {
		err := h.once(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		switch {
		case local(err):
			h.log.Warn("a health check could not be made; the workload counts as it did", "address", h.addr, "error", err)
		case err == nil:
			if failures > 0 || !known {
				told(true, nil)
			}
			succeeded, failures, known = true, 0, true
		case succeeded || time.Since(began) > h.StartPeriod.Std():
			if failures++; failures >= h.Retries {
				return err
			}
			told(false, err)
			known = true
		}
		pause := h.Interval.Std()
		if !known {
			pause = min(pause, time.Second) // while it starts, look often
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
}

// local reports whether a check failed for a lack of the node's own and so says
// nothing about the workload.
func local(err error) bool {
	return slices.ContainsFunc([]error{
		unix.EMFILE, unix.ENFILE, unix.ENOMEM, unix.ENOBUFS, unix.EADDRNOTAVAIL, unix.EAGAIN,
	}, func(lack error) bool { return errors.Is(err, lack) })
}

func (h *healthCheck) once(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, h.Timeout.Std())
	defer cancel()
	switch {
	case h.HTTP != nil:
		return h.get(ctx)
	case h.TCP != nil:
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", h.at(h.TCP.Port))
		if err != nil {
			return err
		}
		return conn.Close()
	}
	code, err := h.exec(ctx, h.Exec)
	if err == nil && code != 0 {
		err = fmt.Errorf("%q ended with exit code %d", h.Exec[0], code)
	}
	return err
}

func (h *healthCheck) at(port int) string {
	return net.JoinHostPort(h.addr.String(), strconv.Itoa(port))
}

func (h *healthCheck) get(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+h.at(h.HTTP.Port)+h.HTTP.Path, nil)
	if err != nil {
		return err
	}
	client := http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	_, copyErr := io.CopyN(io.Discard, resp.Body, 64<<10)
	if errors.Is(copyErr, io.EOF) {
		copyErr = nil
	}
	if err := errors.Join(copyErr, resp.Body.Close()); err != nil {
		return err
	}
	if resp.StatusCode < 200 || resp.StatusCode > 399 {
		return fmt.Errorf("%s answered %s", req.URL, resp.Status)
	}
	return nil
}
