package metrics

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Bounds of scraping, for all scrapers together.
const (
	maxScrapes = 4 // at the same time; others are answered 503
	longest    = 10 * time.Second
)

// Handler answers scrapes in the text format of Prometheus or as OpenMetrics.
// source is called for each, at most four times at once.
func Handler(source func() Snapshot) http.Handler {
	r := newRegistry(source)
	return promhttp.HandlerFor(r, promhttp.HandlerOpts{
		ErrorHandling: promhttp.ContinueOnError, MaxRequestsInFlight: maxScrapes, Timeout: longest, EnableOpenMetrics: true,
	})
}

func newRegistry(source func() Snapshot) *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(newCollector(source), collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}
