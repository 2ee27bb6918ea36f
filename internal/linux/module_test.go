package linux

import "testing"

func TestModuleName(t *testing.T) {
	for file, want := range map[string]string{
		"nbd": "nbd", "dm-verity": "dm_verity", "kernel/drivers/md/dm-verity.ko.xz": "dm_verity", "snd-hda.ko": "snd_hda",
	} {
		if got := ModuleName(file); got != want {
			t.Errorf("%q: got %q, want %q", file, got, want)
		}
	}
}
