package tensor

import (
	"bytes"
	"errors"
	"testing"
	"unicode/utf8"
)

func FuzzStrings(f *testing.F) {
	f.Add(AppendString(AppendString(nil, []byte("one")), nil), 2)
	f.Add([]byte{4, 0, 0, 0, 1}, 1)
	f.Add([]byte{0xff, 0xff, 0xff, 0xff}, 1)
	f.Fuzz(func(t *testing.T, data []byte, elements int) {
		if elements > len(data) {
			elements = len(data)
		}
		var again []byte
		err := Strings(data, elements, func(s []byte) error {
			again = AppendString(again, s)
			return nil
		})
		if err != nil && !errors.Is(err, ErrData) {
			t.Errorf("got %v, want ErrData", err)
		}
		if err == nil && !bytes.Equal(again, data) {
			t.Errorf("got %x again, want %x", again, data)
		}
	})
}

func TestStringsAsJSON(t *testing.T) {
	const text = `["a",["",["\u0041\n"]],"gr\u00fc\"ße"]`
	raw, n, err := ParseStrings(nil, []byte(text))
	if err != nil || n != 4 {
		t.Fatalf("%d elements, %v", n, err)
	}
	got, err := AppendJSON([]byte("x"), Bytes, raw)
	if want := `x["a","","A\n","grü\"ße"]`; err != nil || string(got) != want {
		t.Errorf("got %s, %v, want %s", got, err, want)
	}
	for _, bad := range []string{``, `"a"`, `["a"`, `["a" "b"]`, `["a"]x`, `[1]`, `["\x"]`, "[\"\n\"]", `["a`, `["a\`} {
		if _, _, err := ParseStrings(nil, []byte(bad)); !errors.Is(err, ErrData) {
			t.Errorf("%s: got %v", bad, err)
		}
	}
	for _, bad := range []string{"\x01\x00\x00\x00\xff", "\x02\x00\x00\x00a", "\x01"} {
		if _, err := AppendJSON(nil, Bytes, []byte(bad)); !errors.Is(err, ErrData) {
			t.Errorf("%q: got %v", bad, err)
		}
	}
}

func FuzzParseStrings(f *testing.F) {
	f.Add([]byte(`["a",["\u0041"]]`))
	f.Fuzz(func(t *testing.T, data []byte) {
		raw, n, err := ParseStrings(nil, data)
		if err != nil {
			return
		}
		if err := Strings(raw, n, func([]byte) error { return nil }); err != nil {
			t.Fatal(err)
		}
		if _, err := AppendJSON(nil, Bytes, raw); err != nil && utf8.Valid(data) {
			t.Fatalf("%s: %v", data, err)
		}
	})
}
