package sandbox_test

import (
	"testing"

	"oscine.dev/oscine/internal/node/sandbox/sandboxtest"
	"oscine.dev/oscine/internal/object"
)

func TestAttachOpensTheAPIToThoseWhoAsk(t *testing.T) {
	m := sandboxtest.New(t)
	key := object.Key{Kind: object.KindWorkload, Name: "web"}
	for _, asks := range []bool{true, false} {
		if _, _, err := m.Attach(t.Context(), key, nil, asks); err != nil {
			t.Fatal(err)
		}
		if got := m.Admitted(key.ID()); got != asks {
			t.Errorf("admitted %v, want %v", got, asks)
		}
	}
}
