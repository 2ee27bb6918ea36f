package cli

import (
	"fmt"
	"io"
	"os"
	"strconv"

	"oscine.dev/oscine/internal/gguf"
	"oscine.dev/oscine/internal/printable"
	"oscine.dev/oscine/internal/quantity"
	"oscine.dev/oscine/internal/serve/channel"
)

// planMemory gives a language model, which needs memory by its context, the
// limit that follows from its file's header and its options. Other files are
// left as they are.
func (o *serveOptions) planMemory(path string, log io.Writer) error {
	if !isGGUF(path) {
		return nil
	}
	header, err := gguf.Open(path)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return o.planLanguage(path, header, log)
}

// planLanguage is planMemory by a language model's header.
func (o *serveOptions) planLanguage(path string, header *gguf.Header, log io.Writer) (err error) {
	var memory int64
	if o.memory != "" {
		if memory, err = quantity.ParseBytes(o.memory); err != nil {
			return usageError{fmt.Errorf("--memory %s: %w", o.memory, err)}
		}
	}
	options, _, err := channel.SplitOptions(o.options)
	if err != nil {
		return usageError{fmt.Errorf("%s: %w", path, err)}
	}
	want, err := gguf.ParseWant(options, memory)
	if err != nil {
		return usageError{fmt.Errorf("%s: %w", path, err)}
	}
	plan, err := header.Plan(want)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if o.task = plan.Task; o.memory != "" {
		return nil // the worker plans the same
	}
	o.memory = fmt.Sprintf("%dMi", (plan.Need()+1<<20-1)>>20)
	// What was planned is asked for: the same memory holds other divisions too.
	if o.options == nil {
		o.options = map[string]string{}
	}
	o.options["slots"], o.options["context"] = strconv.Itoa(plan.Slots), strconv.Itoa(plan.Context)
	fmt.Fprintf(log, "%s: %s of memory for %d requests at once of %d tokens each (--memory, --option slots=N, --option context=N)\n",
		header, printable.Bytes(plan.Need()), plan.Slots, plan.Context)
	return nil
}

// isGGUF looks at how a file begins.
func isGGUF(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	head := make([]byte, len(gguf.Magic))
	_, err = io.ReadFull(f, head)
	return err == nil && string(head) == gguf.Magic
}
