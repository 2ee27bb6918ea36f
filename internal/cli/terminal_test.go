package cli

import (
	"bytes"
	"testing"
)

// Output for a terminal steers nothing, however it was cut into pieces.
func TestPlainWriter(t *testing.T) {
	const said = "ä\x1b[2J€\t𝄞\r\n\xff\xe2\x82"
	const want = "ä\\x1b[2J€\t𝄞\r\n\\xff\\xe2\\x82"
	for size := 1; size <= len(said); size++ {
		var out bytes.Buffer
		w := &plainWriter{w: &out}
		for at := 0; at < len(said); at += size {
			piece := []byte(said[at:min(at+size, len(said))])
			if n, err := w.Write(piece); n != len(piece) || err != nil {
				t.Fatalf("wrote %d, %v", n, err)
			}
		}
		if err := w.Close(); err != nil || out.String() != want {
			t.Errorf("in pieces of %d: %q, %v; want %q", size, out.String(), err, want)
		}
	}
}
