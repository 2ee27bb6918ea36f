package linux

import (
	"bytes"
	"encoding/binary"
	"testing"
)

func TestParseCryptMapping(t *testing.T) {
	answer := func(h dmHeader, table []byte) []byte {
		var b bytes.Buffer
		if err := binary.Write(&b, binary.NativeEndian, &h); err != nil {
			t.Fatal(err)
		}
		b.Write(table)
		return b.Bytes()
	}
	one := dmHeader{DataStart: dmHeaderSize, TargetCount: 1}
	got, err := parseCryptMapping("data", answer(one, dmTable("crypt", "aes-xts-plain64 00 0 254:4 32768", 80)))
	if want := (CryptMapping{"data", "aes-xts-plain64 00 0 254:4 32768", 80}); err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	for what, bad := range map[string][]byte{
		"nothing":        nil,
		"another target": answer(one, dmTable("linear", "254:4 0", 80)),
		"no target":      answer(dmHeader{DataStart: dmHeaderSize}, nil),
		"cut short":      answer(one, nil),
		"far away":       answer(dmHeader{DataStart: 1 << 31, TargetCount: 1}, dmTable("crypt", "", 1)),
	} {
		if _, err := parseCryptMapping("data", bad); err == nil {
			t.Errorf("%s: got no error", what)
		}
	}
}
