package optimize

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Options of llama-quantize.
const (
	OptionType            = "type"
	OptionAllowRequantize = "allow-requantize"
	OptionImatrix         = "imatrix"
)

// usualType is the type of most language models on CPUs.
const usualType = "Q4_K_M"

func gguf() Tool {
	return Tool{
		Pack: PackGGUF, Name: "llama-quantize", Format: "GGUF", Suffixes: []string{".gguf"}, Result: ".gguf", Text: true,
		Flags: []string{"type", "allow-requantize", "imatrix"}, Measures: []Measure{Perplexity, Top1}, plan: planGGUF,
	}
}

// Types are those that llama-quantize makes of a model, the smallest first.
func Types() []string {
	return []string{
		"IQ1_S", "IQ1_M", "TQ1_0", "TQ2_0", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M", "Q2_K_S", "Q2_K", "IQ3_XXS", "IQ3_XS", "IQ3_S", "IQ3_M", "Q3_K_S", "Q3_K_M", "Q3_K_L",
		"IQ4_XS", "IQ4_NL", "Q4_0", "Q4_1", "Q4_K_S", "Q4_K_M", "MXFP4_MOE", "Q5_0", "Q5_1", "Q5_K_S", "Q5_K_M", "Q6_K", "Q8_0", "F16", "BF16",
	}
}

// needsImatrix are the types that llama-quantize makes only with an importance matrix.
func needsImatrix(kind string) bool {
	return slices.Contains([]string{"IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "Q2_K_S"}, kind)
}

func planGGUF(f Flags) (Plan, error) {
	kind := strings.ToUpper(f.Type)
	switch {
	case kind == "":
		kind = usualType
	case !slices.Contains(Types(), kind):
		return Plan{}, fmt.Errorf("--type %q: must be one of %s", f.Type, list(Types(), "or"))
	}
	if needsImatrix(kind) {
		f.Imatrix = true
	}
	if f.Imatrix && !f.Data {
		return Plan{}, fmt.Errorf("an importance matrix, which --imatrix and the type %s ask for, is computed from a text: give its file with --calibration", kind)
	}
	return Plan{Method: Quantize, Ending: "-" + kind + ".gguf", Options: map[string]string{
		OptionType: kind, OptionAllowRequantize: strconv.FormatBool(f.AllowRequantize), OptionImatrix: strconv.FormatBool(f.Imatrix),
	}}, nil
}
