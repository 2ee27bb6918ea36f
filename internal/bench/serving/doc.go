// Package serving puts load on a model server that speaks the Open Inference
// Protocol v2, and measures what a client sees: latency, throughput, errors and
// its own processor time. It owns the generated inputs, the closed and the open
// loop, and the report as text, JSON and HTML. It knows nothing of what runs in
// the server, and whose server it is.
package serving
