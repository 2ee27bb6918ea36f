package linux

import (
	"encoding/binary"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
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

func TestMappings(t *testing.T) {
	buf := make([]byte, 512)
	h := dmHeader{DataStart: dmHeaderSize}
	if _, err := binary.Encode(buf, binary.NativeEndian, &h); err != nil {
		t.Fatal(err)
	}
	if got, err := mappings(buf); err != nil || len(got) != 0 {
		t.Errorf("none: got %q, %v", got, err)
	}
	at := buf[dmHeaderSize:]
	for i, name := range []string{"oscine-root", "oscine-pack-1"} {
		binary.NativeEndian.PutUint64(at[i*32:], uint64(unix.Mkdev(253, uint32(i))))
		copy(at[i*32+12:], name+"\x00")
	}
	binary.NativeEndian.PutUint32(at[8:], 32)
	got, err := mappings(buf)
	if err != nil || !slices.Equal(got, []string{"oscine-root", "oscine-pack-1"}) {
		t.Errorf("got %q, %v, want two names", got, err)
	}
}
