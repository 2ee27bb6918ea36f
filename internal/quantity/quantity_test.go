package quantity

import (
	"errors"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
)

func TestFormsThatPeopleType(t *testing.T) {
	const mi, gi = 1 << 20, 1 << 30
	for text, want := range map[string]int64{
		"1": 1, "64Mi": 64 * mi, "64MiB": 64 * mi, "64 MiB": 64 * mi, "1.5Gi": gi + gi/2, "1.5GiB": gi + gi/2, "2G": 2e9, "2GB": 2e9, "2 GB": 2e9,
		"3k": 3000, "3K": 3000, "3kB": 3000, "3KB": 3000, "3Ki": 3072, "3KiB": 3072, "3kiB": 3072, "1e3": 1000, "1E3": 1000, "100B": 100, "100 B": 100,
		"1Ti": 1 << 40, "1TiB": 1 << 40, "1E": 1e18, "1Ei": 1 << 60, "1500m": 2, "+5": 5,
	} {
		if got, err := ParseBytes(text); err != nil || got != want {
			t.Errorf("%q: got %d, %v; want %d", text, got, err, want)
		}
	}
}

func TestWhatIsNoAmountIsRefused(t *testing.T) {
	for _, text := range []string{"", " ", "Mi", "64 ", "64  MiB", "64Mib", "64i", "64iB", "1..2", "0", "-1", "1mB", "64 Mi B", "1e60000000", "1e-60000000", "1e19", "9Ei9", "1e18E",
		"16Ei", "99999999999999999999", strings.Repeat("9", 100), "0x10", "NaN", "inf", "1Gi\n"} {
		begun := time.Now()
		if got, err := ParseBytes(text); err == nil {
			t.Errorf("%q: got %d", text, got)
		}
		if took := time.Since(begun); took > time.Second {
			t.Errorf("%q took %v", text, took)
		}
	}
	if _, err := Parse("lots"); !errors.Is(err, ErrInvalid) {
		t.Errorf("got %v, want %v", err, ErrInvalid)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"64MiB", "1e-60000000", "1.5 GB", "-3Ki", "1e18"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		q, err := Parse(text)
		if err != nil {
			return
		}
		if n, ok := Scaled(q, 0); ok && resource.NewQuantity(n, resource.DecimalSI).Cmp(q) < 0 {
			t.Errorf("%q: %d is less than it", text, n)
		}
		Scaled(q, resource.Milli)
	})
}
