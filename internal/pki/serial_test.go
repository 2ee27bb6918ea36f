package pki

import (
	"testing"
	"time"
)

func TestSerial(t *testing.T) {
	authority, err := NewAuthority("test")
	if err != nil {
		t.Fatal(err)
	}
	rita, err := NewClient(authority, "rita", Reader, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	serial := Serial(leaf(t, rita))
	if got, err := ParseSerial(serial); err != nil || got != serial {
		t.Errorf("got %s, %v, want %s", got, err, serial)
	}
	if got, err := ParseSerial("00:AB:CD:EF:01:23:45:67:89"); err != nil || got != "abcdef0123456789" {
		t.Errorf("with colons: got %s, %v", got, err)
	}
	for _, text := range []string{"", "ada", "rita", "xyz0123456789abcdef0", "0123456789012345678901234567890123456789a"} {
		if got, err := ParseSerial(text); err == nil {
			t.Errorf("%q: got %s, want an error", text, got)
		}
	}
}

func FuzzParseSerial(f *testing.F) {
	f.Add("00:AB:CD:EF:01:23:45:67:89")
	f.Fuzz(func(t *testing.T, text string) {
		serial, err := ParseSerial(text)
		if err != nil {
			return
		}
		if again, err := ParseSerial(serial); err != nil || again != serial {
			t.Errorf("%q: got %q, then %q, %v", text, serial, again, err)
		}
	})
}
