package linux

import (
	"encoding/binary"
	"slices"
	"testing"
)

func TestMappingTargets(t *testing.T) {
	buf := make([]byte, 512)
	h := dmHeader{DataStart: dmHeaderSize}
	if _, err := binary.Encode(buf, binary.NativeEndian, &h); err != nil {
		t.Fatal(err)
	}
	at := buf[dmHeaderSize:]
	binary.NativeEndian.PutUint32(at, 24)
	copy(at[16:], "linear\x00")
	copy(at[24+16:], "verity\x00")
	got, err := mappingTargets(buf)
	if err != nil || !slices.Equal(got, []string{"linear", "verity"}) {
		t.Errorf("got %v, %v, want linear and verity", got, err)
	}
	for i := range buf {
		buf[i] = 0xff
	}
	if got, err := mappingTargets(buf); err == nil && len(got) > 0 {
		t.Errorf("garbage: got targets %q", got)
	}
}
