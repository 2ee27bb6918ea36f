package tensor

import (
	"bytes"
	"errors"
	"testing"
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
