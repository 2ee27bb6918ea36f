package quantity

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/api/resource"

	"oscine.dev/oscine/internal/pattern"
)

// Bounds of what is read: Kubernetes' parser writes out all the digits of
// 1e-60000000, which takes minutes.
const (
	maxText     = 64
	maxExponent = 18
)

// ErrInvalid is returned for what is no quantity, or one beyond all bounds.
var ErrInvalid = errors.New("is not a quantity")

// unitRE finds a unit of bytes as it is written outside Kubernetes.
var unitRE = pattern.New(`^([-+]?[0-9.]+) ?(k|K|M|G|T|P|E)?(i?)(B?)$`)

// Parse reads a quantity in the notation of k8s.io/apimachinery, or with one of
// the units of bytes KiB, MiB, …, kB, MB, … . Errors: ErrInvalid.
func Parse(text string) (resource.Quantity, error) {
	refused := func() (resource.Quantity, error) {
		return resource.Quantity{}, fmt.Errorf("%q %w: write 500m, 2, 256Mi or 4Gi", clip(text), ErrInvalid)
	}
	if len(text) > maxText {
		return refused()
	}
	plain := text
	if m := unitRE.Regexp().FindStringSubmatch(text); m != nil {
		switch unit := m[2] + m[3]; {
		case m[2] == "" && (m[3] != "" || strings.Contains(text, " ") && m[4] == ""):
			return refused()
		case unit == "K": // Kubernetes has a small one
			plain = m[1] + "k"
		case unit == "ki":
			plain = m[1] + "Ki"
		default:
			plain = m[1] + unit
		}
	}
	if !few(plain) {
		return refused()
	}
	q, err := resource.ParseQuantity(plain)
	if err != nil {
		return refused()
	}
	return q, nil
}

// few reports whether a quantity has few digits.
func few(text string) bool {
	_, exponent, ok := strings.Cut(strings.ToLower(text), "e")
	if !ok || exponent == "" || exponent == "i" { // 1E and 1Ei are units
		return true
	}
	n, err := strconv.Atoi(exponent)
	return err == nil && -maxExponent <= n && n <= maxExponent
}

func clip(text string) string {
	if len(text) <= maxText {
		return text
	}
	return strings.ToValidUTF8(text[:maxText], "") + "…"
}

// ParseBytes reads an amount of bytes, rounded up to a whole one, that is at
// least one. The error leaves it to the caller to name the text.
func ParseBytes(text string) (int64, error) {
	q, err := Parse(text)
	if err != nil {
		return 0, errors.New("not an amount of bytes: write 512Mi, 2Gi or 1500M")
	}
	n, ok := Scaled(q, 0)
	if !ok || n < 1 {
		return 0, fmt.Errorf("not an amount of bytes from 1 to %d: write 512Mi, 2Gi or 1500M", int64(math.MaxInt64))
	}
	return n, nil
}

// Scaled returns a quantity in units of 10^scale, rounded up, and false where
// it does not fit 63 bits.
func Scaled(q resource.Quantity, scale resource.Scale) (int64, bool) {
	// The parser caps what is too large, without a word, at ±(2⁶³-1).
	if whole := q.Value(); whole == math.MaxInt64 || whole <= -math.MaxInt64 {
		return 0, false
	}
	v := q.ScaledValue(scale)
	// ScaledValue saturates or wraps silently; compare with what it came from.
	if back := resource.NewScaledQuantity(v, scale); q.Cmp(*back) > 0 || (v < 0) != (q.Sign() < 0) {
		return 0, false
	}
	return v, true
}
