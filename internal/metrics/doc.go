// Package metrics shows a node to Prometheus: the names, labels and help of its
// metrics, and the pages that answer a scrape. It is given what is true at the
// moment of a scrape as one Snapshot, keeps no counters of its own, holds no lock
// of the node's, and bounds how many series there can be. It depends on
// prometheus/client_golang and internal/printable.
package metrics
