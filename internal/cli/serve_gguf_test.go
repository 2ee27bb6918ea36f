package cli

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"oscine.dev/oscine/internal/gguf/gguftest"
)

// What the worker would refuse is refused before the file is sent.
func TestLanguageModelsOptions(t *testing.T) {
	file := filepath.Join(t.TempDir(), "tiny.gguf")
	if err := os.WriteFile(file, gguftest.Tiny(gguftest.Options{}), 0o600); err != nil {
		t.Fatal(err)
	}
	for option, want := range map[string]string{
		"task=embed": "", "slots=2": "", "batch=alone": "", "deterministic=false": "",
		"task=sing":    "choose generate, embed or rerank",
		"slots=0":      "must be a number from 1 on",
		"context=many": "must be a number from 1 on",
		"speed=high":   "there are context, slots, task",
		"batch=off":    "choose independent or alone",
	} {
		name, value, _ := strings.Cut(option, "=")
		o := serveOptions{options: map[string]string{name: value}}
		err := o.planMemory(file, io.Discard)
		if want == "" {
			if err != nil || o.memory == "" {
				t.Errorf("%s: got %v, memory %q", option, err, o.memory)
			}
		} else if err == nil || !strings.Contains(err.Error(), "option "+option+": ") || !strings.Contains(err.Error(), want) || !errors.As(err, new(usageError)) {
			t.Errorf("%s: got %v, want %s", option, err, want)
		}
	}
}
