package bench

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"
)

func TestReportGivesMediansAndRatios(t *testing.T) {
	r := BootReport{Accel: "tcg"}
	for _, s := range []time.Duration{9, 6, 7} {
		r.Oscine = append(r.Oscine, BootSample{CPU: s * time.Second, Processes: int64(s) << 20, QEMU: int64(s) << 20})
		r.Debian = append(r.Debian, BootSample{CPU: 4 * s * time.Second, Processes: int64(s) << 20, QEMU: int64(s) << 21})
	}
	var text strings.Builder
	if err := r.Write(&text); err != nil {
		t.Fatal(err)
	}
	if want := "processor time to the first answer, s               7.0       28.0     0.25\n"; !strings.Contains(text.String(), want) {
		t.Errorf("report lacks %q:\n%s", want, text.String())
	}
}

func TestReadReports(t *testing.T) {
	reports := make(chan int64, 1)
	readReports(strings.NewReader("[    1.0] noise\n\x1b[0mpeer-memory pss_kib=2048 used_kib=1\nmore\n"), reports)
	if got := <-reports; got != 2<<20 {
		t.Errorf("report: got %d, want 2 MiB", got)
	}
}

func TestOwnProcess(t *testing.T) {
	if used, err := processTime(os.Getpid()); err != nil || used < 0 {
		t.Errorf("processor time: got %s, %v", used, err)
	}
}

func TestUntilReadyEndsWithTheMachine(t *testing.T) {
	gone := errors.New("gone")
	_, err := untilReady(t.Context(), func() (time.Duration, error) { return 0, gone }, func(context.Context) error { return errors.New("refused") })
	if !errors.Is(err, gone) {
		t.Errorf("got %v, want that the machine is gone", err)
	}
}
