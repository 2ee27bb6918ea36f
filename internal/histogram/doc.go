// Package histogram says how durations and other sizes are counted in buckets
// whose width grows with the value, as HDR histograms do: every power of two has
// the same number of buckets. It owns the arithmetic of such buckets; its callers
// own the counters, which may be atomic, or the kernel's. It depends on nothing.
package histogram
