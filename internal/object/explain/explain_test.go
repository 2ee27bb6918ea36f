package explain

import (
	"bytes"
	"encoding/json"
	"flag"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/pki"
)

var update = flag.Bool("update", false, "rewrite comments.json and docs/manifests.md")

// golden compares a generated file with what it should hold.
func golden(t *testing.T, file, want string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("%s is not what the types say; go generate ./internal/object/explain rewrites it (-types +file):\n%s", file, diff)
	}
}

// The embedded comments are those of the source.
func TestComments(t *testing.T) {
	raw, err := json.MarshalIndent(sourceComments(t), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "comments.json", string(raw)+"\n")
}

func TestReference(t *testing.T) {
	comments := sourceComments(t)
	var b bytes.Buffer
	err := reference(&b, object.Kinds(), func(row *object.Definition) (*Field, error) {
		return describe(object.Kinds(), row, comments), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "../../../docs/manifests.md", b.String())
}

// sourceComments reads the comments of the exported types and their fields.
func sourceComments(t *testing.T) map[string]string {
	t.Helper()
	files, err := filepath.Glob("../*.go")
	if err != nil || len(files) == 0 {
		t.Fatalf("no source files: %v", err)
	}
	comments := map[string]string{}
	add := func(name string, groups ...*ast.CommentGroup) {
		var words []string
		for _, g := range groups {
			words = append(words, strings.Fields(g.Text())...)
		}
		if len(words) > 0 {
			comments[name] = strings.Join(words, " ")
		}
	}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		for _, decl := range f.Decls {
			g, ok := decl.(*ast.GenDecl)
			if !ok || g.Tok != token.TYPE {
				continue
			}
			for _, spec := range g.Specs {
				typ := spec.(*ast.TypeSpec)
				body, ok := typ.Type.(*ast.StructType)
				if !ok || !typ.Name.IsExported() {
					continue
				}
				manifest := false
				for _, field := range body.Fields.List {
					for _, name := range field.Names {
						if field.Tag != nil && strings.Contains(field.Tag.Value, "json:") {
							add(typ.Name.Name+"."+name.Name, field.Doc, field.Comment)
							manifest = true
						}
					}
				}
				if manifest {
					add(typ.Name.Name, g.Doc)
				}
			}
		}
	}
	return comments
}

// What the reference says is what the checks and defaults do.
func TestFields(t *testing.T) {
	kinds := object.Kinds()
	for _, c := range []struct {
		kind, path, want string
	}{
		{"workload", "spec.ports.port", "whole number, required, from 1 to 65535"},
		{"workload", "image", "text, an image reference"},
		{"workload", "spec.class", "text, default interactive, one of realtime, interactive, batch"},
		{"workload", "spec.health.interval", "duration, default 10s, from 100ms to 24h"},
		{"workload", "spec.stopGrace", "duration, default 10s, from 0s to 1h"},
		{"workload", "spec.resources.memory", "quantity, at least 1Mi"},
		{"workload", "spec.resources.deadline.deadline", "duration"},
		{"workload", "spec.env", "mapping of text to text"},
		{"workload", "spec.args", "list of texts"},
		{"model", "spec.resources.cpu", "quantity, default 100m, more than 0"},
		{"machine", "spec.api.port", "whole number, default 7443, from 1 to 65535"},
		{"machine", "spec.classes.realtime.cpuWeight", "whole number, from 1 to 10000"},
	} {
		row, _ := kinds.ByWord(c.kind)
		root, err := Kind(kinds, row)
		if err != nil {
			t.Fatal(err)
		}
		f, err := root.Find(strings.Split(c.path, "."))
		if err != nil {
			t.Errorf("%s.%s: %v", c.kind, c.path, err)
			continue
		}
		if got := f.Facts(); got != c.want {
			t.Errorf("%s.%s: got %q, want %q", c.kind, c.path, got, c.want)
		}
	}
}

// Every field of a spec says what it is for.
func TestEveryFieldIsExplained(t *testing.T) {
	kinds := object.Kinds()
	for i := range kinds {
		root, err := Kind(kinds, &kinds[i])
		if err != nil {
			t.Fatal(err)
		}
		if root.Doc == "" {
			t.Errorf("%s has no comment", kinds[i].Kind)
		}
		root.Walk(func(f *Field) {
			if f.Doc == "" {
				t.Errorf("%s.%s has no comment", kinds[i].Kind, f.Path)
			}
		})
	}
}

// The example of each kind is a valid manifest.
func TestExamples(t *testing.T) {
	authority, err := pki.NewAuthority("test")
	if err != nil {
		t.Fatal(err)
	}
	node, err := pki.NewNode(authority, "node-1", []string{"192.0.2.7"})
	if err != nil {
		t.Fatal(err)
	}
	kinds := object.Kinds()
	for i := range kinds {
		text, err := Example(&kinds[i])
		if err != nil {
			t.Errorf("%s has no example: %v", kinds[i].Kind, err)
			continue
		}
		text = strings.ReplaceAll(text, "CERTIFICATE OF THE AUTHORITY, PEM", strconv.Quote(string(authority.Certificate)))
		text = strings.ReplaceAll(text, "CERTIFICATE OF THE NODE, PEM", strconv.Quote(string(node.Certificate)))
		objects, err := kinds.Parse(strings.NewReader(text))
		if err != nil {
			t.Errorf("the example of %s: %v", kinds[i].Kind, err)
		} else if len(objects) != 1 || objects[0].Key().Kind != kinds[i].Kind {
			t.Errorf("the example of %s holds %v", kinds[i].Kind, objects)
		}
	}
}
