package attest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/google/go-tpm/tpm2"
)

// WriteFiles writes verified evidence into a folder in the forms that
// tpm2_checkquote of tpm2-tools takes, and returns its command line, with names
// below the folder.
func WriteFiles(dir string, e *Evidence, s *Statement, nonce []byte) (command []string, err error) {
	key, err := s.PEM()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	write := func(name string, data []byte) error { return os.WriteFile(filepath.Join(dir, name), data, 0o644) }
	err = errors.Join(write("key.pem", key), write("quote.msg", e.Quote), write("quote.sig", e.Signature), write("pcrs.bin", serialized(e.PCRs)))
	return []string{
		"tpm2_checkquote", "--public=key.pem", "--message=quote.msg", "--signature=quote.sig", "--hash-algorithm=sha256",
		"--pcr=pcrs.bin", fmt.Sprintf("--qualification=%x", nonce),
	}, err
}

// serialized is the file of registers that tpm2-tools write with --format
// serialized: structures of tpm2-tss as they lie in memory, TPML_PCR_SELECTION, a
// count and so many TPML_DIGEST, in little-endian order
// (tpm2-tools, lib/pcr.c; tpm2-tss, tss2_tpm2_types.h).
func serialized(pcrs [][]byte) []byte {
	const banks, selectSize, digests, digestSize = 16, 8, 8, 64
	le := binary.LittleEndian
	b := le.AppendUint32(nil, 1)
	b = le.AppendUint16(b, uint16(tpm2.TPMAlgSHA256))
	b = append(b, 3, 0xff, 0xff, 0, 0, 0) // three bytes of bits: the first 16 registers
	b = append(b, make([]byte, (banks-1)*selectSize)...)
	b = le.AppendUint32(b, uint32((len(pcrs)+digests-1)/digests))
	for i, pcr := range pcrs {
		if i%digests == 0 {
			b = le.AppendUint32(b, uint32(min(digests, len(pcrs)-i)))
		}
		b = le.AppendUint16(b, uint16(len(pcr)))
		b = append(append(b, pcr...), make([]byte, digestSize-len(pcr))...)
	}
	return b
}
