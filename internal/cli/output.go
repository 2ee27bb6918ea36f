package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
)

// writeDocument writes a value as JSON or YAML, both with the same names.
func writeDocument(w io.Writer, value any, output string) error {
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(value); err != nil {
		return err
	}
	if output == "yaml" {
		raw, err := blockYAML(text.Bytes())
		if err != nil {
			return fmt.Errorf("convert to YAML: %w", err)
		}
		text.Reset()
		text.Write(raw)
	}
	_, err := w.Write(text.Bytes())
	return err
}
