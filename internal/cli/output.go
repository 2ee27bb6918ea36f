package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"oscine.dev/oscine/internal/client"
	"oscine.dev/oscine/internal/printable"
)

// The outputs of every command that lists or shows things.
const (
	outputTable = "table"
	outputWide  = "wide" // a table with more columns, where there are more
	outputJSON  = "json"
	outputYAML  = "yaml"
	outputName  = "name" // names alone, one a line
)

// addOutput gives a command the flag -o with the outputs that all have, and
// further ones.
func addOutput(c *cobra.Command, further ...string) *string {
	return addOutputs(c, append([]string{outputTable, outputWide, outputJSON, outputYAML, outputName}, further...)...)
}

// addReportOutput gives -o to a command whose answer is a report: it has no
// names and one width.
func addReportOutput(c *cobra.Command, further ...string) *string {
	return addOutputs(c, append([]string{outputTable, outputJSON, outputYAML}, further...)...)
}

func addOutputs(c *cobra.Command, allowed ...string) *string {
	o := &outputFlag{chosen: outputTable, allowed: allowed}
	last := len(o.allowed) - 1
	c.Flags().VarP(o, "output", "o", strings.Join(o.allowed[:last], ", ")+" or "+o.allowed[last])
	_ = c.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(o.allowed, cobra.ShellCompDirectiveNoFileComp)) // fails for an unknown flag only
	return &o.chosen
}

// outputFlag implements pflag.Value.
type outputFlag struct {
	chosen  string
	allowed []string
}

// String returns the chosen output.
func (o *outputFlag) String() string { return o.chosen }

// Type names the flag's values in the help.
func (o *outputFlag) Type() string { return "FORMAT" }

// Set chooses an output.
func (o *outputFlag) Set(s string) error {
	if !slices.Contains(o.allowed, s) {
		return fmt.Errorf("unknown output %q: use %s", s, strings.Join(o.allowed, ", "))
	}
	o.chosen = s
	return nil
}

// listing is what a command lists or shows.
type listing struct {
	value any // for JSON and YAML; a proto.Message, or a list of them, by its own rules
	names []string
	table func(w io.Writer, wide bool) error
}

// print writes a listing in one of the outputs that all commands have.
func (l listing) print(w io.Writer, output string) error {
	switch output {
	case outputName:
		for _, name := range l.names {
			if _, err := fmt.Fprintln(w, printable.Text(name)); err != nil {
				return err
			}
		}
		return nil
	case outputJSON, outputYAML:
		return writeDocument(w, l.value, output)
	}
	return l.table(w, output == outputWide)
}

// writeDocument writes a value as JSON or YAML, both with the same names.
func writeDocument(w io.Writer, value any, output string) error {
	var err error
	switch v := value.(type) {
	case proto.Message:
		if value, err = messageJSON(v); err != nil {
			return err
		}
	case []proto.Message:
		list := make([]json.RawMessage, len(v))
		for i, m := range v {
			if list[i], err = messageJSON(m); err != nil {
				return err
			}
		}
		value = list
	}
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(value); err != nil {
		return err
	}
	if output == outputYAML {
		raw, err := client.BlockYAML(text.Bytes())
		if err != nil {
			return fmt.Errorf("convert to YAML: %w", err)
		}
		text.Reset()
		text.Write(raw)
	}
	_, err = w.Write(text.Bytes())
	return err
}

// listOf lists messages, a line of a table for each; titles and lines have tabs
// between their cells.
func listOf[M proto.Message](list []M, name func(M) string, titles string, row func(m M, wide bool) string) listing {
	all := make([]proto.Message, len(list))
	names := make([]string, len(list))
	for i, m := range list {
		all[i], names[i] = m, name(m)
	}
	return listing{all, names, func(out io.Writer, wide bool) error {
		w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
		fmt.Fprintln(w, titles)
		for _, m := range list {
			fmt.Fprintln(w, row(m, wide))
		}
		return w.Flush()
	}}
}

// shortDigest is the beginning of a digest, by which it can be named, or in a
// wide table all of it.
func shortDigest(digest string, wide bool) string {
	const short = len("sha256:") + 12
	if !wide && len(digest) > short {
		digest = digest[:short]
	}
	return orDash(digest)
}

// messageJSON is a protocol message as the node's API writes it.
func messageJSON(m proto.Message) (json.RawMessage, error) {
	return protojson.MarshalOptions{EmitUnpopulated: true}.Marshal(m)
}
