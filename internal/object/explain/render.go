package explain

import (
	"embed"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"oscine.dev/oscine/internal/object"
)

// examples has a manifest for each kind, KIND.yaml.
//
//go:embed examples/*.yaml
var examples embed.FS

// Example returns a manifest of the kind with a part of its fields. Where a
// certificate belongs it says so instead.
func Example(row *object.Definition) (string, error) {
	text, err := examples.ReadFile("examples/" + row.Word() + ".yaml")
	return string(text), err
}

// Write tells of the field and lists those that it holds, with all below them
// where that is asked for.
func (f *Field) Write(w io.Writer, kind object.Kind, recursive bool) error {
	name := string(kind)
	if f.Path != "" {
		name += "." + f.Path
	}
	fmt.Fprintf(w, "%s: %s\n", name, f.Facts())
	if f.Doc != "" {
		fmt.Fprintf(w, "\n%s\n", f.Doc)
	}
	if len(f.Fields) == 0 {
		return nil
	}
	fmt.Fprint(w, "\nFields:\n")
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	list(tw, f, "  ", recursive)
	return tw.Flush()
}

func list(w io.Writer, f *Field, indent string, recursive bool) {
	for _, c := range f.Fields {
		fmt.Fprintf(w, "%s%s\t%s\t%s\n", indent, c.Name, c.Facts(), c.Doc)
		if recursive {
			list(w, c, indent+"  ", recursive)
		}
	}
}

// Reference writes the reference of manifests in Markdown.
func Reference(w io.Writer, kinds object.Table) error {
	return reference(w, kinds, func(row *object.Definition) (*Field, error) { return Kind(kinds, row) })
}

func reference(w io.Writer, kinds object.Table, describe func(*object.Definition) (*Field, error)) error {
	fmt.Fprintf(w, `# Manifests

What the manifests of each kind hold, all with `+"`apiVersion: %s`"+`. `+"`oscine explain KIND.FIELD`"+` tells the same of one field.
A quantity is written 500m, 2, 256Mi or 4Gi, a duration 500ms, 10s or 5m. `+"`[]`"+` stands for each element of a list.
This page is made from the types of internal/object by `+"`go generate ./internal/object/explain`"+`.
`, object.APIVersion)
	for i := range kinds {
		row := &kinds[i]
		f, err := describe(row)
		if err != nil {
			return err
		}
		example, err := Example(row)
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "\n## %s\n\n%s\n\n", row.Kind, f.Doc)
		if !row.Stored() {
			fmt.Fprintf(w, "%s%s.\n\n", strings.ToUpper(row.NotApplied[:1]), row.NotApplied[1:])
		}
		fmt.Fprintf(w, "```yaml\n%s```\n\n| field | value | |\n|---|---|---|\n", example)
		f.Walk(func(c *Field) {
			fmt.Fprintf(w, "| `%s` | %s | %s |\n", c.Path, cell(c.Facts()), cell(c.Doc))
		})
	}
	return nil
}

func cell(s string) string { return strings.NewReplacer("|", "\\|", "<", "&lt;").Replace(s) }
