package tracing_test

import (
	"testing"

	"oscine.dev/oscine/internal/serve/servetest"
)

func TestMain(m *testing.M) { servetest.Main(m) }
