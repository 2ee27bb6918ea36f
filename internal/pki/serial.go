package pki

import (
	"crypto/x509"
	"fmt"
	"math/big"
	"strings"
)

// Digits of a serial number in hexadecimal: RFC 5280 allows 20 bytes, and what
// sign makes has hardly ever fewer than 16 digits, unlike a name.
const (
	minSerial = 16
	maxSerial = 40
)

// Serial writes a certificate's serial number in lower-case hexadecimal.
func Serial(cert *x509.Certificate) string { return fmt.Sprintf("%0*x", minSerial, cert.SerialNumber) }

// ParseSerial reads a serial number as Serial and other tools write it, with
// capitals and colons too, and returns it as Serial does.
func ParseSerial(text string) (string, error) {
	digits := strings.ToLower(strings.ReplaceAll(text, ":", ""))
	if len(digits) < minSerial || len(digits) > maxSerial || strings.Trim(digits, "0123456789abcdef") != "" {
		return "", fmt.Errorf("%.60q is no serial number: write its %d to %d hexadecimal digits (oscine config contexts shows them)", text, minSerial, maxSerial)
	}
	number, _ := new(big.Int).SetString(digits, 16) // only digits are left
	return fmt.Sprintf("%0*x", minSerial, number), nil
}
