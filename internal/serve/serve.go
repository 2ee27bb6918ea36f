package serve

import (
	"net/http"

	"oscine.dev/oscine/internal/serve/core"
	"oscine.dev/oscine/internal/serve/front"
	"oscine.dev/oscine/internal/serve/front/kserve"
	"oscine.dev/oscine/internal/serve/front/oip"
	"oscine.dev/oscine/internal/serve/front/oip/rpc"
	"oscine.dev/oscine/internal/serve/front/openai"
)

// fronts are the protocols, one a line.
func fronts() []front.Front {
	return []front.Front{
		oip.Front(),
		rpc.Front(),
		kserve.Front(),
		openai.Front(),
	}
}

// Options are the settings of the inference endpoint.
type Options = front.Options

// Routes are the patterns of http.ServeMux that NewHandler answers.
func Routes() []string {
	var routes []string
	for _, f := range fronts() {
		routes = append(routes, f.Routes...)
	}
	return routes
}

// Rejecter returns what answers a request that is kept from NewHandler, as the
// clients of its protocol expect it.
func Rejecter() func(http.ResponseWriter, *http.Request, error) { return front.Rejecter(fronts()) }

// NewHandler serves the registry's models over all protocols.
func NewHandler(r *core.Registry, o Options) http.Handler {
	return front.Handler(r, o, fronts())
}
