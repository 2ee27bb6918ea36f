package boot

import (
	"os"
	"path/filepath"

	"oscine.dev/oscine/internal/linux"
)

// watchButtons sends the name of an input device below dir to pressed when its
// power key is pressed. A machine without such a key is left alone.
func watchButtons(log *Log, dir string, pressed chan<- string) {
	names, err := filepath.Glob(filepath.Join(dir, "event*"))
	if err != nil {
		return
	}
	for _, name := range names {
		device, err := os.Open(name)
		if err != nil {
			log.Error("power button: %v", err)
			continue
		}
		if !linux.HasKey(device, linux.KeyPower) {
			_ = device.Close()
			continue
		}
		background(log, "power button", func() error {
			defer device.Close()
			for {
				if err := linux.WaitKey(device, linux.KeyPower); err != nil {
					return err
				}
				pressed <- filepath.Base(name)
			}
		})
	}
}
