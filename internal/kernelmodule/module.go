package kernelmodule

import (
	"bytes"
	"debug/elf"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"oscine.dev/oscine/internal/uki"
)

// Info reads what a module says of itself (include/linux/moduleparam.h), each key
// with its values in their order.
func Info(file string) (map[string][]string, error) {
	f, err := elf.Open(file)
	if err != nil {
		return nil, fmt.Errorf("read the module %s: %w", file, err)
	}
	defer f.Close()
	section := f.Section(".modinfo")
	if section == nil {
		return nil, fmt.Errorf("read the module %s: it has no .modinfo", file)
	}
	text, err := section.Data()
	if err != nil {
		return nil, fmt.Errorf("read the module %s: %w", file, err)
	}
	info := map[string][]string{}
	for field := range bytes.SplitSeq(text, []byte{0}) {
		if key, value, ok := strings.Cut(string(field), "="); ok {
			info[key] = append(info[key], value)
		}
	}
	return info, nil
}

// What ends a signed module, and the structure before that (include/linux/module_signature.h).
const (
	magic     = "~Module signature appended~\n"
	idPKCS7   = 2
	structure = 12 // bytes
)

// Sign returns a module with its signature by a key, as the kernel takes it
// (Documentation/admin-guide/module-signing.rst). The same module and key give the
// same bytes.
func Sign(module []byte, key *uki.Key) ([]byte, error) {
	if bytes.HasSuffix(module, []byte(magic)) {
		return nil, errors.New("sign the module: it is signed already")
	}
	inner, err := key.SignDetached(module)
	if err != nil {
		return nil, fmt.Errorf("sign the module: %w", err)
	}
	message, err := asn1.Marshal(struct {
		ID      asn1.ObjectIdentifier
		Content asn1.RawValue
	}{
		ID:      asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2}, // SignedData of PKCS #7
		Content: asn1.RawValue{Class: asn1.ClassContextSpecific, IsCompound: true, Bytes: inner},
	})
	if err != nil {
		return nil, fmt.Errorf("sign the module: %w", err)
	}
	var tail [structure]byte
	tail[2] = idPKCS7
	binary.BigEndian.PutUint32(tail[8:], uint32(len(message)))
	out := append(append([]byte(nil), module...), message...)
	return append(append(out, tail[:]...), magic...), nil
}
