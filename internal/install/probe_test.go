package install

import (
	"bytes"
	"strings"
	"testing"
)

func TestProbe(t *testing.T) {
	for want, text := range map[string]string{
		"xfs scratch":       "XFSB" + strings.Repeat("\x00", 104) + "scratch\x00\x00\x00\x00\x00",
		"crypto_LUKS":       "LUKS\xba\xbe",
		"ntfs":              "\xeb\x52\x90NTFS    ",
		"vfat BOOT":         strings.Repeat("\x00", 71) + "BOOT       FAT32   ",
		"squashfs":          "hsqs",
		"":                  "nothing",
		"linux_raid_member": "\xfc\x4e\x2b\xa9",
	} {
		got := probe(bytes.NewReader(append([]byte(text), make([]byte, 512<<10)...)), 512<<10)
		if text := strings.TrimSpace(got.Type + " " + got.Label); text != want {
			t.Errorf("got %q, want %q", text, want)
		}
	}
}

func TestProbeUnreadable(t *testing.T) {
	for _, readable := range []int{0, 100 << 10, 256 << 10} {
		if got := probe(bytes.NewReader(make([]byte, readable)), 512<<10); got.Problem == "" {
			t.Errorf("%d bytes can be read: got %+v", readable, got)
		}
	}
}

func FuzzProbe(f *testing.F) {
	f.Add([]byte("XFSB"))
	f.Add(bytes.Repeat([]byte{0x53, 0xef}, 2000))
	f.Fuzz(func(t *testing.T, data []byte) {
		s := probe(bytes.NewReader(data), int64(len(data)))
		if s.Type == "" && (s.Label != "" || s.Member) || len(s.Label) > 4*256 {
			t.Errorf("got %+v", s)
		}
	})
}
