package object

import (
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"

	"oscine.dev/oscine/internal/quantity"
)

// Quantity is a Kubernetes resource quantity, such as "1500m", "2" or
// "256Mi"; the zero Quantity means "not given". Quantities are equal where
// they are written the same.
type Quantity struct {
	text         string
	units, milli amount // as parsed from text
}

// amount is a whole number, where it fits 63 bits.
type amount struct {
	n        int64
	overflow bool
}

// MakeQuantity returns the Quantity that s writes.
func MakeQuantity(s string) (Quantity, error) {
	var q Quantity
	return q, q.UnmarshalText([]byte(s))
}

// literal is a Quantity of this package's own.
func literal(s string) Quantity {
	q, err := MakeQuantity(s)
	if err != nil {
		panic(err)
	}
	return q
}

// UnmarshalText accepts what internal/quantity reads.
func (q *Quantity) UnmarshalText(text []byte) error {
	parsed, err := quantity.Parse(string(text))
	if err != nil {
		return fmt.Errorf("%s is not a quantity: write 500m, 2, 256Mi or 4Gi", quote(string(text)))
	}
	*q = Quantity{string(text), scaled(parsed, 0), scaled(parsed, resource.Milli)}
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
func (q Quantity) Value() (int64, bool) { return q.units.n, !q.units.overflow }

// MilliValue returns the amount in thousandths (milli-CPU), rounded up, and
// false where it does not fit 63 bits.
func (q Quantity) MilliValue() (int64, bool) { return q.milli.n, !q.milli.overflow }

func scaled(parsed resource.Quantity, scale resource.Scale) amount {
	n, ok := quantity.Scaled(parsed, scale)
	return amount{n, !ok}
}

// Duration is a time.Duration written as "500ms", "10s" or "5m".
type Duration time.Duration

// maxDuration bounds the text of a duration: 2562047h47m16.854775807s is the
// longest that Go writes.
const maxDuration = 32

// UnmarshalText accepts Go's duration notation; negative values are refused.
func (d *Duration) UnmarshalText(text []byte) error {
	if len(text) > maxDuration {
		return fmt.Errorf("%s is not a duration: write 500ms, 10s or 5m", quote(string(text)))
	}
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("%q is not a duration: write 500ms, 10s or 5m", text)
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
