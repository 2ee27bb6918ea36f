package uki

import (
	"bytes"
	"crypto/sha256"
	"debug/pe"
	"errors"
	"fmt"
)

// measured are the sections that systemd's stub measures, in its order
// (systemd-stub(7), "TPM PCR Notes"; src/fundamental/uki.c). It leaves out
// .pcrsig, which holds signatures of the outcome.
var measured = []string{
	".linux", ".osrel", ".cmdline", ".initrd", ".ucode", ".splash", ".dtb", ".uname", ".sbat", ".pcrpkey",
}

// PCR11 predicts what platform configuration register 11 of a TPM holds, in its
// SHA-256 bank, once systemd's stub has started the image: the register starts
// as zeros and takes up the name and the content of each section.
func PCR11(image []byte) ([sha256.Size]byte, error) {
	var pcr [sha256.Size]byte
	if _, err := layoutOf(image); err != nil {
		return pcr, fmt.Errorf("measure the unified kernel image: %w", err)
	}
	file, err := pe.NewFile(bytes.NewReader(image))
	if err != nil {
		return pcr, fmt.Errorf("measure the unified kernel image: %w", err)
	}
	extend := func(data []byte) {
		digest := sha256.Sum256(data)
		pcr = sha256.Sum256(append(pcr[:], digest[:]...))
	}
	for _, name := range measured {
		s := file.Section(name)
		if s == nil {
			continue
		}
		// In memory the section has its virtual size: what the file lacks is zero.
		end := uint64(s.Offset) + uint64(min(s.Size, s.VirtualSize))
		if end > uint64(len(image)) || s.VirtualSize > MaxSize {
			return pcr, errors.New("measure the unified kernel image: it is cut off")
		}
		data := make([]byte, s.VirtualSize)
		copy(data, image[s.Offset:end])
		extend(append([]byte(name), 0))
		extend(data)
	}
	return pcr, nil
}
