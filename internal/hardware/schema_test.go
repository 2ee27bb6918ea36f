package hardware

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite SCHEMA.md")

// TestSchema keeps SCHEMA.md, the description of the JSON document, equal to
// the types that it is made from.
func TestSchema(t *testing.T) {
	want := schemaText(t)
	if *update {
		if err := os.WriteFile("SCHEMA.md", []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile("SCHEMA.md")
	if err != nil {
		t.Fatal(err)
	}
	if diff := gocmp.Diff(want, string(got)); diff != "" {
		t.Errorf("SCHEMA.md is not what the types say; go test -update rewrites it (-types +file):\n%s", diff)
	}
}

func schemaText(t *testing.T) string {
	t.Helper()
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	types := map[string]*ast.GenDecl{}
	for _, file := range files {
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			if g, ok := d.(*ast.GenDecl); ok && g.Tok == token.TYPE && len(g.Specs) == 1 && !strings.HasSuffix(file, "_test.go") {
				types[g.Specs[0].(*ast.TypeSpec).Name.Name] = g
			}
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "# The hardware map as JSON\n\nThe document that `oscine hardware -o json` prints and the node's API serves, schema `%s`.\n"+
		"Within v1 fields are only added; a reader skips what it does not know. A set is a string in the kernel's list\n"+
		"format, `\"0-3,8\"`. Amounts are in bytes. This text is made from the types of the package by its tests.\n", Schema)
	for queue, seen := []string{"Machine"}, map[string]bool{"Machine": true}; len(queue) > 0; queue = queue[1:] {
		g := types[queue[0]]
		if g == nil {
			t.Fatalf("type %s is not declared by itself", queue[0])
		}
		fmt.Fprintf(&b, "\n## %s\n\n%s\n\n| field | type | |\n|---|---|---|\n", queue[0], oneLine(g.Doc.Text()))
		spec, ok := g.Specs[0].(*ast.TypeSpec).Type.(*ast.StructType)
		if !ok {
			continue
		}
		for _, field := range spec.Fields.List {
			if field.Tag == nil {
				continue
			}
			name, options, _ := strings.Cut(reflect.StructTag(strings.Trim(field.Tag.Value, "`")).Get("json"), ",")
			kind, inner := typeName(field.Type)
			if strings.Contains(options, "omitempty") {
				kind += ", optional"
			}
			fmt.Fprintf(&b, "| `%s` | %s | %s |\n", name, kind, oneLine(field.Doc.Text()+" "+field.Comment.Text()))
			if g := types[inner]; g != nil && !seen[inner] {
				if _, ok := g.Specs[0].(*ast.TypeSpec).Type.(*ast.StructType); ok && inner != "Set" {
					seen[inner] = true
					queue = append(queue, inner)
				}
			}
		}
	}
	return b.String()
}

func oneLine(text string) string {
	return strings.ReplaceAll(strings.Join(strings.Fields(text), " "), "|", "\\|")
}

// typeName is a Go type in JSON's words, and the struct it is made of.
func typeName(e ast.Expr) (name, inner string) {
	switch e := e.(type) {
	case *ast.Ident:
		switch e.Name {
		case "int", "uint64", "float64", "Bytes":
			return "number", e.Name
		case "bool":
			return "true or false", ""
		case "string", "CacheKind":
			return "string", ""
		case "Set":
			return "set", ""
		case "any":
			return "any value", ""
		}
		return e.Name, e.Name
	case *ast.StarExpr:
		return typeName(e.X)
	case *ast.ArrayType:
		name, inner := typeName(e.Elt)
		return "list of " + name, inner
	case *ast.MapType:
		name, inner := typeName(e.Value)
		return "object of " + name, inner
	}
	return "any value", ""
}
