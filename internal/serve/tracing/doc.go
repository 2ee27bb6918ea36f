// Package tracing tells the way of requests as OpenTelemetry traces: the front
// that answers, the wait in the queue, the batch that forms, the run by the
// worker. It owns the spans and their export by OTLP, and depends on core for
// when a request reached each of them. Without an endpoint nothing of it is
// there.
package tracing
