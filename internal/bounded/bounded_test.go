package bounded

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func TestReadAll(t *testing.T) {
	for text, fits := range map[string]bool{"": true, "1234": true, "12345": false, strings.Repeat("x", 1000): false} {
		got, err := ReadAll(iotest.OneByteReader(strings.NewReader(text)), 4)
		if fits && (err != nil || string(got) != text) || !fits && (!errors.Is(err, ErrTooLarge) || got != nil) {
			t.Errorf("%d bytes: %q, %v", len(text), got, err)
		}
	}
	// It reads one byte more than the bound, not all that comes.
	endless := &counting{}
	if _, err := ReadAll(endless, 1<<20); !errors.Is(err, ErrTooLarge) || endless.n > 1<<20+1 {
		t.Errorf("%v after %d bytes", err, endless.n)
	}
	broken := errors.New("broken")
	if _, err := ReadAll(io.MultiReader(strings.NewReader("a"), iotest.ErrReader(broken)), 4); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
}

// counting gives bytes without end.
type counting struct{ n int }

func (c *counting) Read(p []byte) (int, error) {
	c.n += len(p)
	return len(p), nil
}
