package printable

import (
	"math"
	"testing"
)

func TestBytes(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 B", 1: "1 B", 99: "99 B", 1023: "1023 B", 1024: "1 KiB", 1536: "1.5 KiB", 64 << 20: "64 MiB", 100 << 20: "100 MiB", 1000 << 20: "1000 MiB",
		1234 << 20: "1.21 GiB", 512 << 30: "512 GiB", math.MaxInt64: "8 EiB", -(3 << 19): "-1.5 MiB",
	} {
		if got := Bytes(n); got != want {
			t.Errorf("%d: got %q, want %q", n, got, want)
		}
	}
}
