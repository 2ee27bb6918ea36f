package optimize

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"oscine.dev/oscine/internal/printable"
)

// Packs that hold a tool, by the names of both.
const (
	PackONNX     = "optimize-onnx"
	PackGGUF     = "optimize-gguf"
	PackOpenVINO = "optimize-openvino"
)

// Tool is what optimises models of a format, in a pack of its own. Each lies in a
// file of its format's name, here and in the package job.
type Tool struct {
	Pack     string
	Name     string    // of the program or library by others that makes the result
	Format   string    // its usual name
	Suffixes []string  // of the files of its models
	To       string    // what --to names it by, for models in another format
	From     []string  // the suffixes of those
	Result   string    // the suffix of what it makes
	Text     bool      // the data is a text, no arrays
	Flags    []string  // of the command, that say how; others are refused
	Measures []Measure // that there are for its models
	plan     func(Flags) (Plan, error)
}

// Flags are what is asked of a tool; what is "" or false was not asked for.
type Flags struct {
	Int8, Type, Preset       string
	AllowRequantize, Imatrix bool
	Converts                 bool // the model is in another format
	Data                     bool // there is some to calibrate with
}

// Plan is what a tool is to do.
type Plan struct {
	Method  Method
	Options map[string]string // of the tool
	Ending  string            // of the result's name
}

// Tools are all that there are.
func Tools() []Tool { return []Tool{onnx(), gguf(), openvino()} }

// without are tools that no pack holds, by the suffixes of the models that need them.
func without() map[string]string {
	return map[string]string{
		".tflite": "AI Edge Quantizer", ".pb": "NNCF",
		".pt": "torch.ao", ".pth": "torch.ao", ".jit": "torch.ao", ".pt2": "torch.ao", ".pte": "ExecuTorch's export",
	}
}

// For returns the tool for a model of these files, and which of them it reads. Where to
// is not "" it is the one that makes models of that format.
func For(model string, files []string, to string) (*Tool, string, error) {
	for _, t := range Tools() {
		read := t.Suffixes
		if to != "" {
			if t.To != to {
				continue
			}
			read = append(slices.Clone(t.From), read...)
		}
		var mine []string
		for _, f := range files {
			if slices.Contains(read, strings.ToLower(filepath.Ext(f))) {
				mine = append(mine, f)
			}
		}
		switch {
		case len(mine) > 1:
			return nil, "", fmt.Errorf("%s holds %d models in %s: name the file of one", model, len(mine), t.Format)
		case len(mine) == 1:
			return &t, mine[0], nil
		case to != "":
			return nil, "", fmt.Errorf("%s is in no format of which a model in %s is made: give a file that ends in %s", model, t.Format, list(read, "or"))
		}
	}
	if to != "" {
		return nil, "", fmt.Errorf("--to %q: must be %s", to, list(Targets(), "or"))
	}
	for _, f := range files {
		if tool := without()[strings.ToLower(filepath.Ext(f))]; tool != "" {
			return nil, "", fmt.Errorf("%s has a format whose models are optimised with %s, for which there is no pack yet: use it before you serve the model, or export the model to ONNX", model, tool)
		}
	}
	return nil, "", fmt.Errorf("%s is in no format that is optimised: give a file that ends in %s", model, list(suffixes(), "or"))
}

// Targets are the formats that --to may name.
func Targets() []string {
	var all []string
	for _, t := range Tools() {
		if t.To != "" {
			all = append(all, t.To)
		}
	}
	return all
}

func suffixes() []string {
	var all []string
	for _, t := range Tools() {
		all = append(all, t.Suffixes...)
	}
	return all
}

// list writes words for people.
func list(words []string, last string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " " + last + " " + words[len(words)-1]
}

// Plan says what the tool does that is asked for f, by the flags that were given.
func (t *Tool) Plan(f Flags, measure Measure, given []string) (Plan, error) {
	for _, flag := range given {
		if !slices.Contains(t.Flags, flag) {
			return Plan{}, fmt.Errorf("--%s is not for models in %s, which take %s", flag, t.Format, flagList(t.Flags))
		}
	}
	if measure != Auto && !slices.Contains(t.Measures, measure) {
		names := []string{string(Auto)}
		for _, m := range t.Measures {
			names = append(names, string(m))
		}
		return Plan{}, fmt.Errorf("--accuracy %s is not for models in %s: use %s", measure, t.Format, list(names, "or"))
	}
	return t.plan(f)
}

// Data returns the files of what a person gives to calibrate with, below a folder.
func (t *Tool) Data(path string) (dir string, names []string, err error) {
	if !t.Text {
		names, err = DataFiles(path)
		return path, names, err
	}
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return "", nil, err
	case !info.Mode().IsRegular() || info.Size() == 0:
		return "", nil, fmt.Errorf("%w: %s is no text: models in %s are measured on a text file, such as some pages of what they will be asked", ErrNoData, printable.Text(path), t.Format)
	}
	return filepath.Dir(path), []string{filepath.Base(path)}, nil
}

func flagList(flags []string) string {
	var names []string
	for _, f := range flags {
		names = append(names, "--"+f)
	}
	return list(names, "and")
}
