package object

import (
	"fmt"
	"math"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
)

// Quantity is a Kubernetes resource quantity, such as "1500m", "2" or
// "256Mi"; the zero Quantity means "not given".
type Quantity struct{ text string }

// MakeQuantity returns the Quantity that s writes.
func MakeQuantity(s string) (Quantity, error) {
	var q Quantity
	return q, q.UnmarshalText([]byte(s))
}

// UnmarshalText accepts the notation of k8s.io/apimachinery.
func (q *Quantity) UnmarshalText(text []byte) error {
	if len(text) > 64 {
		return fmt.Errorf("quantity of %d characters is too long", len(text))
	}
	if _, err := resource.ParseQuantity(string(text)); err != nil {
		return fmt.Errorf("%q is not a quantity; write 500m, 2, 256Mi or 4Gi", text)
	}
	q.text = string(text)
	return nil
}

// MarshalText returns the quantity as it was written.
func (q Quantity) MarshalText() ([]byte, error) { return []byte(q.text), nil }

// String returns the quantity as it was written.
func (q Quantity) String() string { return q.text }

// IsZero reports whether the quantity was left out.
func (q Quantity) IsZero() bool { return q.text == "" }

// Value returns the amount rounded up to a whole unit (bytes, devices), and
// false where it does not fit 63 bits.
func (q Quantity) Value() (int64, bool) { return q.scaled(0) }

// MilliValue returns the amount in thousandths (milli-CPU), rounded up, and
// false where it does not fit 63 bits.
func (q Quantity) MilliValue() (int64, bool) { return q.scaled(resource.Milli) }

func (q Quantity) scaled(scale resource.Scale) (int64, bool) {
	if q.IsZero() {
		return 0, true
	}
	parsed, err := resource.ParseQuantity(q.text)
	if err != nil {
		return 0, false
	}
	// The parser caps what is too large, without a word, at ±(2⁶³-1).
	if whole := parsed.Value(); whole == math.MaxInt64 || whole <= -math.MaxInt64 {
		return 0, false
	}
	v := parsed.ScaledValue(scale)
	// ScaledValue saturates or wraps silently; compare with what it came from.
	if back := resource.NewScaledQuantity(v, scale); parsed.Cmp(*back) > 0 || (v < 0) != (parsed.Sign() < 0) {
		return 0, false
	}
	return v, true
}

// Duration is a time.Duration written as "500ms", "10s" or "5m".
type Duration time.Duration

// UnmarshalText accepts Go's duration notation; negative values are refused.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("%q is not a duration; write 500ms, 10s or 5m", text)
	}
	if v < 0 {
		return fmt.Errorf("%q is negative", text)
	}
	*d = Duration(v)
	return nil
}

// MarshalText writes Go's duration notation.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// String is that of time.Duration.
func (d Duration) String() string { return time.Duration(d).String() }

// Std returns the duration as a time.Duration.
func (d Duration) Std() time.Duration { return time.Duration(d) }
