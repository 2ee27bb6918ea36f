package printable

import "testing"

func TestRate(t *testing.T) {
	for perSecond, want := range map[float64]string{100: "100/s", 1: "1/s", 2.5: "2.5/s", 2.0 / 60: "2/m", 90.0 / 3600: "1.5/m", 5.0 / 3600: "5/h", 0.5 / 3600: "0.5/h"} {
		if number, unit := Rate(perSecond); number+"/"+unit != want {
			t.Errorf("%g: got %s/%s, want %s", perSecond, number, unit, want)
		}
	}
}
