package oip

import (
	_ "embed" // the documents are served as they are
	"net/http"

	"oscine.dev/oscine/internal/serve/front"
)

var (
	//go:embed openapi.yaml
	openAPI []byte
	//go:embed proto/inference.proto
	definition []byte
)

// document serves a document of the protocol.
func document(kind string, text []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", kind)
		front.Send(w, http.StatusOK, text)
	}
}
