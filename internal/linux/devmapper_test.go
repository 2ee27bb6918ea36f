package linux

import (
	"bytes"
	"encoding/binary"
	"testing"
	"unsafe"
)

// The sizes and places are those of include/uapi/linux/dm-ioctl.h.
func TestDeviceMapperLayout(t *testing.T) {
	if got := binary.Size(dmHeader{}); got != dmHeaderSize {
		t.Errorf("struct dm_ioctl: got %d bytes, want %d", got, dmHeaderSize)
	}
	table := dmTable("verity", "1 254:2", 80)
	if len(table)%8 != 0 || len(table) < 40+len("1 254:2")+1 {
		t.Errorf("table of %d bytes", len(table))
	}
	if got := binary.NativeEndian.Uint64(table[8:]); got != 80 {
		t.Errorf("length: got %d sectors, want 80", got)
	}
	if !bytes.Equal(table[24:31], []byte("verity\x00")) || !bytes.Equal(table[40:48], []byte("1 254:2\x00")) {
		t.Errorf("type and parameters: got %q", table[24:])
	}
}

func TestParseStatus(t *testing.T) {
	answer := func(h dmHeader, table []byte) []byte {
		var b bytes.Buffer
		if err := binary.Write(&b, binary.NativeEndian, &h); err != nil {
			t.Fatal(err)
		}
		b.Write(table)
		return b.Bytes()
	}
	one := dmHeader{DataStart: dmHeaderSize, TargetCount: 1}
	want := "aes-xts-plain64 00 0 254:4 32768"
	got, sectors, err := parseStatus(answer(one, dmTable("crypt", want, 80)), "crypt")
	if err != nil || got != want || sectors != 80 {
		t.Errorf("got %q, %d sectors, %v, want %q, 80", got, sectors, err, want)
	}
	for what, bad := range map[string][]byte{
		"nothing":        nil,
		"another target": answer(one, dmTable("linear", "254:4 0", 80)),
		"no target":      answer(dmHeader{DataStart: dmHeaderSize}, nil),
		"cut short":      answer(one, nil),
		"far away":       answer(dmHeader{DataStart: 1 << 31, TargetCount: 1}, dmTable("crypt", "", 1)),
	} {
		if _, _, err := parseStatus(bad, "crypt"); err == nil {
			t.Errorf("%s: got no error", what)
		}
	}
}

func TestPartitionLayout(t *testing.T) {
	if got := unsafe.Sizeof(blkpgPartition{}); got != 152 {
		t.Errorf("struct blkpg_partition: got %d bytes, want 152", got)
	}
	if got := unsafe.Offsetof(blkpgArg{}.Data); got != 16 {
		t.Errorf("struct blkpg_ioctl_arg: data at %d, want 16", got)
	}
}

func TestWaitKey(t *testing.T) {
	event := func(kind, code uint16, value uint32) []byte {
		b := make([]byte, 24)
		binary.NativeEndian.PutUint16(b[16:], kind)
		binary.NativeEndian.PutUint16(b[18:], code)
		binary.NativeEndian.PutUint32(b[20:], value)
		return b
	}
	other := bytes.Join([][]byte{event(0, 0, 0), event(evKey, 30, 1), event(evKey, KeyPower, 0)}, nil)
	if err := WaitKey(bytes.NewReader(other), KeyPower); err == nil {
		t.Error("another key, or its release, counts as pressed")
	}
	if err := WaitKey(bytes.NewReader(append(other, event(evKey, KeyPower, 1)...)), KeyPower); err != nil {
		t.Errorf("the pressed key: %v", err)
	}
}
