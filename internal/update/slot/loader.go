package slot

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"oscine.dev/oscine/internal/release"
	"oscine.dev/oscine/internal/uki"
)

// Firmware is what the machine's firmware knows of boot loaders.
type Firmware interface {
	// Loader is the path on the ESP of the boot loader that this boot came through.
	Loader() (string, error)
	// TryOnce has the next start go through the boot loader with that path on the ESP,
	// and those after it through the one that it is now. Errors of firmware that keeps no
	// variables wrap errors.ErrUnsupported.
	TryOnce(path string) error
	// Tries is how often TryOnce was called since Forget, and whether the last start that
	// it asked for is still to come.
	Tries() (n int, waits bool, err error)
	// Forget removes what TryOnce wrote.
	Forget() error
}

// LoaderStep is how far the replacement of the boot loader is.
type LoaderStep string

// What ReplaceLoader found or did.
const (
	LoaderSame     LoaderStep = ""         // the boot loader is the one on the running root, or newer
	LoaderStaged   LoaderStep = "staged"   // the next start of the machine tries it
	LoaderReplaced LoaderStep = "replaced" // it was tried, and is now the one that firmware starts
	LoaderRefused  LoaderStep = "refused"  // the firmware did not start it: the one before stays
)

// loaderTries is how often a boot loader is tried. Firmware forgets the wish before it
// starts one, so one that works may seem not to if power fails soon after.
const loaderTries = 3

// trialFolder holds a boot loader that is tried. Firmware looks there only when it is
// told to.
const trialFolder = "EFI/systemd"

// ReplaceLoader takes the boot loader on the ESP to the one among the files of the
// running root. It is written beside the old one, firmware starts it once, and only
// when a boot came through it does it take the old one's place. Where firmware cannot
// start it, the machine starts as before. No upgrade may be under way, and the running
// version must be good.
func (s *Slots) ReplaceLoader(firmware Firmware, files map[string][]byte) (LoaderStep, error) {
	for name, want := range files {
		if strings.EqualFold(path.Ext(name), ".efi") {
			step, err := s.replaceLoader(firmware, name, want)
			if err != nil {
				return step, fmt.Errorf("replace the boot loader %s: %w", name, err)
			}
			return step, nil
		}
	}
	return LoaderSame, nil
}

func (s *Slots) replaceLoader(firmware Firmware, name string, want []byte) (LoaderStep, error) {
	trial := path.Join(trialFolder, "systemd-"+strings.ToLower(path.Base(name)))
	var now, tried []byte
	err := s.disk.ESP(func(esp ESP) (err error) {
		if now, err = readAll(esp, name); err != nil {
			return err
		}
		if tried, err = readAll(esp, trial); errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		return err
	})
	if err != nil {
		return LoaderSame, err
	}
	if bytes.Equal(now, want) || loaderVersion(now) != "" && release.CompareVersions(loaderVersion(want), loaderVersion(now)) < 0 {
		if tried == nil {
			return LoaderSame, nil
		}
		return LoaderSame, s.endTrial(firmware, trial)
	}
	if err := sameSigner(now, want); err != nil {
		return LoaderSame, err
	}
	if !bytes.Equal(tried, want) {
		return s.stageLoader(firmware, trial, want)
	}
	came, err := firmware.Loader()
	if err != nil {
		return LoaderSame, err
	}
	tries, waits, err := firmware.Tries()
	switch {
	case err != nil:
		return LoaderSame, err
	case waits:
		return LoaderStaged, nil
	case tries > 0 && strings.EqualFold(came, trial): // without a try, this boot came through an earlier one at that path
		if err := s.put(repair{name, want}); err != nil {
			return LoaderSame, err
		}
		return LoaderReplaced, s.endTrial(firmware, trial)
	case tries >= loaderTries:
		return LoaderRefused, nil
	}
	return LoaderStaged, firmware.TryOnce(trial)
}

// stageLoader has a boot loader tried at the next start.
func (s *Slots) stageLoader(firmware Firmware, trial string, want []byte) (LoaderStep, error) {
	err := s.disk.ESP(func(esp ESP) error { // another one's trial is over
		return errors.Join(esp.Remove(trial), esp.Flush())
	})
	if err != nil {
		return LoaderSame, err
	}
	if err := firmware.Forget(); err != nil {
		return LoaderSame, err
	}
	if err := s.put(repair{trial, want}); err != nil {
		return LoaderSame, err
	}
	if err := firmware.TryOnce(trial); err != nil {
		return LoaderSame, errors.Join(err, s.endTrial(firmware, trial))
	}
	return LoaderStaged, nil
}

// endTrial removes what a trial left.
func (s *Slots) endTrial(firmware Firmware, trial string) error {
	if err := firmware.Forget(); err != nil {
		return err
	}
	return s.disk.ESP(func(esp ESP) error { return errors.Join(esp.Remove(trial), esp.Flush()) })
}

// sameSigner refuses a boot loader that firmware would not start: where the one now
// is signed, the new one must be by the same key.
func sameSigner(now, want []byte) error {
	trusted, err := uki.Signer(now)
	if errors.Is(err, uki.ErrUnsigned) {
		return nil
	}
	if err != nil {
		return err
	}
	signer, err := uki.Signer(want)
	if err != nil {
		return fmt.Errorf("that of the running version: %w", err)
	}
	if !bytes.Equal(signer.Raw, trusted.Raw) {
		return fmt.Errorf("that of the running version is signed by %q, which is not the key of the one in use", signer.Subject)
	}
	return nil
}

// loaderVersion is the version that a boot loader says it has, "" for none
// (https://systemd.io/BOOT_LOADER_INTERFACE, section .sdmagic).
func loaderVersion(program []byte) string {
	_, rest, ok := bytes.Cut(program, []byte("#### LoaderInfo: systemd-boot "))
	if !ok {
		return ""
	}
	version, _, ok := bytes.Cut(rest, []byte(" ####"))
	if !ok || len(version) > 64 {
		return ""
	}
	return string(version)
}
