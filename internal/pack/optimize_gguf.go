package pack

import "oscine.dev/oscine/internal/optimize"

// optimizeGGUFRecipe is llama.cpp's own tools, from the same packages of Debian as the
// engine.
func optimizeGGUFRecipe() recipe {
	return recipe{name: optimize.PackGGUF, manifest: toolManifest(optimize.PackGGUF)}
}

func optimizeGGUFSteps() []step {
	return []step{(*builder).skeleton, (*builder).optimizer, llamaPrograms("llama-quantize", "llama-imatrix", "llama-perplexity", "llama-completion", "llama-bench")}
}
