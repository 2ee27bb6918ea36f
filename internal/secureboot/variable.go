package secureboot

import (
	"bytes"
	"crypto/x509"
	"encoding/binary"
	"time"
	"unicode/utf16"

	"github.com/google/uuid"

	"oscine.dev/oscine/internal/uki"
)

// Identifiers of the UEFI specification: §3.3 (EFI_GLOBAL_VARIABLE), §32.4.1
// (EFI_CERT_X509_GUID, EFI_CERT_TYPE_PKCS7_GUID) and §32.6.1
// (EFI_IMAGE_SECURITY_DATABASE_GUID).
const (
	globalVariables  = "8be4df61-93ca-11d2-aa0d-00e098032b8c"
	securityDatabase = "d719b2cb-3d3a-4596-a3bc-dad00e67656f"
	typeX509         = "a5c059a1-94e4-4aa7-87b5-ab155c2bf072"
	typePKCS7        = "4aafd29d-68df-49ee-8aa9-347d375665a7"
)

// attributes of the variables: kept when the power is off, for boot and run time,
// written only with a signature that has a time (§8.2).
const attributes = 0x01 | 0x02 | 0x04 | 0x20

// appendGUID writes an identifier the way firmware does: its first three numbers
// in little-endian order.
func appendGUID(b []byte, id uuid.UUID) []byte {
	b = append(b, id[3], id[2], id[1], id[0], id[5], id[4], id[7], id[6])
	return append(b, id[8:]...)
}

// signatureList is an EFI_SIGNATURE_LIST for each certificate (§32.4.1): a list
// holds signatures of one size.
func signatureList(owner uuid.UUID, certificates []*x509.Certificate) []byte {
	const header, ownerSize = 28, 16
	var b []byte
	for _, c := range certificates {
		size := uint32(ownerSize + len(c.Raw))
		b = appendGUID(b, uuid.MustParse(typeX509))
		b = binary.LittleEndian.AppendUint32(b, header+size)
		b = binary.LittleEndian.AppendUint32(b, 0) // size of the list's own header
		b = binary.LittleEndian.AppendUint32(b, size)
		b = append(appendGUID(b, owner), c.Raw...)
	}
	return b
}

// trusts reports that a signed variable, as authenticated makes it, lists a
// certificate.
func trusts(auth []byte, c *x509.Certificate) bool {
	const timeSize, listHead, ownerSize = 16, 28, 16
	if len(auth) < timeSize+4 {
		return false
	}
	message := uint64(binary.LittleEndian.Uint32(auth[timeSize:]))
	if message > uint64(len(auth)-timeSize) {
		return false
	}
	kind := appendGUID(nil, uuid.MustParse(typeX509))
	for list := auth[timeSize+message:]; len(list) >= listHead; {
		size, head, each := uint64(binary.LittleEndian.Uint32(list[16:])), uint64(binary.LittleEndian.Uint32(list[20:])), uint64(binary.LittleEndian.Uint32(list[24:]))
		if size < listHead+head || size > uint64(len(list)) || each < ownerSize {
			return false
		}
		for all := list[listHead+head : size]; bytes.Equal(list[:16], kind) && uint64(len(all)) >= each; all = all[each:] {
			if bytes.Equal(all[ownerSize:each], c.Raw) {
				return true
			}
		}
		list = list[size:]
	}
	return false
}

// efiTime is an EFI_TIME of the precision that signatures have: seconds, UTC.
func efiTime(at time.Time) []byte {
	at = at.UTC()
	b := binary.LittleEndian.AppendUint16(nil, uint16(at.Year()))
	b = append(b, byte(at.Month()), byte(at.Day()), byte(at.Hour()), byte(at.Minute()), byte(at.Second()), 0)
	return append(b, make([]byte, 8)...)
}

// authenticated is what SetVariable takes (EFI_VARIABLE_AUTHENTICATION_2, §8.2.2):
// the content with the time and the signature of the key that may change the
// variable.
func authenticated(name, vendor string, content []byte, at time.Time, key *uki.Key) ([]byte, error) {
	var signed []byte
	for _, c := range utf16.Encode([]rune(name)) {
		signed = binary.LittleEndian.AppendUint16(signed, c)
	}
	signed = appendGUID(signed, uuid.MustParse(vendor))
	signed = binary.LittleEndian.AppendUint32(signed, attributes)
	signed = append(append(signed, efiTime(at)...), content...)
	message, err := key.SignDetached(signed)
	if err != nil {
		return nil, err
	}
	const head = 4 + 2 + 2 + 16
	b := binary.LittleEndian.AppendUint32(efiTime(at), uint32(head+len(message)))
	b = binary.LittleEndian.AppendUint16(b, 0x0200) // WIN_CERT_REVISION_2_0
	b = binary.LittleEndian.AppendUint16(b, 0x0ef1) // WIN_CERT_TYPE_EFI_GUID
	b = appendGUID(b, uuid.MustParse(typePKCS7))
	return append(append(b, message...), content...), nil
}
