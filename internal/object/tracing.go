package object

import "net/url"

// Tracing sends the way of inference requests through the node to a collector of
// OpenTelemetry traces; see docs/metrics.md.
type Tracing struct {
	Endpoint string `json:"endpoint"` // of a collector that takes OTLP over HTTP, such as http://192.0.2.9:4318
	// Percent of the requests that are traced, unless the client's traceparent
	// says that one is or is not; default 100.
	Percent *int `json:"percent,omitempty"`
}

// check notes what is wrong with it.
func (t *Tracing) check(c *Checker) {
	u, err := url.Parse(t.Endpoint)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.User != nil {
		c.Bad("spec.tracing.endpoint", "must be an address such as http://192.0.2.9:4318, got %q", t.Endpoint)
	}
	if t.Percent != nil && (*t.Percent < 0 || *t.Percent > 100) {
		c.Bad("spec.tracing.percent", "must be from 0 to 100, got %d", *t.Percent)
	}
}
