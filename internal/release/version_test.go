package release

import "testing"

// The order is that of the specification's examples, oldest first.
func TestCompareVersions(t *testing.T) {
	ordered := []string{
		"~1", "", "ab", "abb", "abc", "0001", "002", "12", "122", "122.9", "123~rc1", "123", "123-a", "123-a.1", "123-a1", "123-a1.1",
		"123-3", "123-3.1", "123^patch1", "123^1", "123.a-1", "123.1-1", "123a-1", "124",
	}
	for i, a := range ordered {
		for j, b := range ordered {
			if got := CompareVersions(a, b); sign(got) != sign(i-j) {
				t.Errorf("CompareVersions(%q, %q) = %d, want the sign of %d", a, b, got, i-j)
			}
		}
	}
	for _, same := range [][2]string{{"1", "1"}, {"01", "1"}, {"1.0.0", "1.0.00"}, {"", ""}, {"1+", "1"}, {"(1)", "1"}} {
		if got := CompareVersions(same[0], same[1]); got != 0 {
			t.Errorf("CompareVersions(%q, %q) = %d, want 0", same[0], same[1], got)
		}
	}
	for _, older := range [][2]string{{"~1", ""}, {"", "0"}, {"1.0~rc1", "1.0"}, {"0.9.9", "0.10"}, {"1.0", "1.0.1"}, {"a", "1"}} {
		if CompareVersions(older[0], older[1]) >= 0 || CompareVersions(older[1], older[0]) <= 0 {
			t.Errorf("%q is not older than %q", older[0], older[1])
		}
	}
}

func sign(n int) int {
	switch {
	case n < 0:
		return -1
	case n > 0:
		return 1
	}
	return 0
}

func TestValidVersion(t *testing.T) {
	for version, want := range map[string]bool{
		"0.1.0": true, "v1": true, "1.0~rc1": true, "1^2-3": true,
		"": false, ".1": false, "1+2": false, "1_2": false, "1/2": false, "1 2": false, "1\n": false,
	} {
		if got := ValidVersion(version); got != want {
			t.Errorf("ValidVersion(%q) = %v", version, got)
		}
	}
}

func FuzzCompareVersions(f *testing.F) {
	f.Add("1.0~rc1", "1.0")
	f.Fuzz(func(t *testing.T, a, b string) {
		if x, y := CompareVersions(a, b), CompareVersions(b, a); sign(x) != -sign(y) {
			t.Errorf("%q and %q: %d, and %d the other way round", a, b, x, y)
		}
	})
}
