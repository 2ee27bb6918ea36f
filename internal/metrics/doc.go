// Package metrics exports a node's metrics to Prometheus: the names, labels and help of its
// metrics, and the pages that answer a scrape. Each scrape gives it the present values as one Snapshot; it
// keeps no counters of its own, holds no lock of the node's, and bounds how many series there can be. It
// depends on prometheus/client_golang and internal/printable.
package metrics
