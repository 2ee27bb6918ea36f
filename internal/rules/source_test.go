package rules

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// root is the top of the tree, seen from this package.
const root = "../.."

// maxLines is where a file hides more than one concept.
const maxLines = 500

// source is one parsed Go file.
type source struct {
	path      string // below root
	text      string
	file      *ast.File
	set       *token.FileSet
	generated bool
}

func (s source) test() bool { return strings.HasSuffix(s.path, "_test.go") }

func (s source) at(node ast.Node) string {
	p := s.set.Position(node.Pos())
	return fmt.Sprintf("%s:%d", s.path, p.Line)
}

// sources parses every Go file of the tree.
func sources(t *testing.T) []source {
	t.Helper()
	var all []source
	for _, path := range files(t) {
		if !strings.HasSuffix(path, ".go") || strings.Contains(path, "testdata/") {
			continue
		}
		text, err := os.ReadFile(filepath.Join(root, path))
		if err != nil {
			t.Fatal(err)
		}
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, path, text, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			t.Errorf("%v", err)
			continue
		}
		all = append(all, source{path, string(text), file, set, ast.IsGenerated(file)})
	}
	return all
}

// files lists the files of the tree, without what is built and what git keeps.
func files(t *testing.T) []string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		if d.IsDir() && slices.Contains([]string{".git", "out"}, name) {
			return fs.SkipDir
		}
		if d.Type().IsRegular() {
			all = append(all, name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestEveryPackageSaysWhatItOwns(t *testing.T) {
	docs, folders := map[string][]string{}, map[string]string{}
	for _, s := range sources(t) {
		dir := filepath.Dir(s.path)
		if s.test() {
			continue
		}
		if !s.generated {
			folders[dir] = s.file.Name.Name
		}
		if s.file.Doc == nil {
			continue
		}
		docs[dir] = append(docs[dir], s.path)
		text := s.file.Doc.Text()
		want := "Package " + s.file.Name.Name + " "
		if s.file.Name.Name == "main" {
			want = "Command " + filepath.Base(dir) + " "
		}
		if !s.generated && !strings.HasPrefix(text, want) {
			t.Errorf("%s: package comment begins %q, want %q", s.path, first(text, 30), want)
		}
	}
	for dir := range folders {
		if got := docs[dir]; len(got) != 1 || filepath.Base(got[0]) != "doc.go" {
			t.Errorf("%s: package comments in %v, want one, in doc.go", dir, got)
		}
	}
}

func first(text string, n int) string { return text[:min(n, len(text))] }

func TestExportedNamesAreDocumented(t *testing.T) {
	for _, s := range sources(t) {
		if s.test() || s.generated || s.file.Name.Name == "main" {
			continue
		}
		for _, d := range s.file.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				known := d.Recv != nil && slices.Contains([]string{"Error", "Unwrap", "Is"}, d.Name.Name) // package errors says what they do
				if d.Name.IsExported() && receiverExported(d) && d.Doc == nil && !known {
					t.Errorf("%s: %s has no comment", s.at(d), d.Name.Name)
				}
			case *ast.GenDecl:
				checkGroup(t, s, d)
			}
		}
	}
}

func receiverExported(d *ast.FuncDecl) bool {
	if d.Recv == nil || len(d.Recv.List) == 0 {
		return true
	}
	kind := d.Recv.List[0].Type
	if p, ok := kind.(*ast.StarExpr); ok {
		kind = p.X
	}
	if g, ok := kind.(*ast.IndexExpr); ok {
		kind = g.X
	}
	name, ok := kind.(*ast.Ident)
	return !ok || name.IsExported()
}

// checkGroup wants a comment on each exported type, and on constants and
// variables one each or one for their group.
func checkGroup(t *testing.T, s source, d *ast.GenDecl) {
	t.Helper()
	for _, spec := range d.Specs {
		switch spec := spec.(type) {
		case *ast.TypeSpec:
			if spec.Name.IsExported() && spec.Doc == nil && (d.Doc == nil || len(d.Specs) > 1) {
				t.Errorf("%s: type %s has no comment", s.at(spec), spec.Name.Name)
			}
		case *ast.ValueSpec:
			for _, name := range spec.Names {
				if name.IsExported() && d.Doc == nil && spec.Doc == nil && spec.Comment == nil {
					t.Errorf("%s: %s has no comment", s.at(spec), name.Name)
				}
			}
		}
	}
}

func TestFilesAndPackagesAreSmallAndNamed(t *testing.T) {
	vague := []string{"util", "utils", "common", "helper", "helpers", "types", "manager", "misc", "base"}
	for _, s := range sources(t) {
		if lines := strings.Count(s.text, "\n"); !s.generated && lines > maxLines {
			t.Errorf("%s has %d lines, at most %d: a concept is hiding in it", s.path, lines, maxLines)
		}
		if name := strings.TrimSuffix(s.file.Name.Name, "_test"); slices.Contains(vague, name) {
			t.Errorf("%s: package name %s says nothing", s.path, name)
		}
	}
}

func TestNothingHappensBeforeMain(t *testing.T) {
	for _, s := range sources(t) {
		if s.generated || s.test() {
			continue
		}
		for _, d := range s.file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
				t.Errorf("%s: func init has effects that nobody asked for", s.at(f))
			}
			if g, ok := d.(*ast.GenDecl); ok && g.Tok == token.VAR {
				checkState(t, s, g)
			}
		}
	}
}

// checkState refuses variables of a package that are there to be changed:
// those without a value, except for embedded files and interface assertions.
func checkState(t *testing.T, s source, g *ast.GenDecl) {
	t.Helper()
	for _, spec := range g.Specs {
		v, ok := spec.(*ast.ValueSpec)
		if !ok || len(v.Values) > 0 || v.Names[0].Name == "_" || embedded(g.Doc) || embedded(v.Doc) {
			continue
		}
		t.Errorf("%s: variable %s of the package is mutable state", s.at(v), v.Names[0].Name)
	}
}

func embedded(doc *ast.CommentGroup) bool {
	if doc == nil {
		return false
	}
	return slices.ContainsFunc(doc.List, func(c *ast.Comment) bool { return strings.HasPrefix(c.Text, "//go:embed ") })
}

// TestRawSystemCallsStayInTheirPackage finds calls by number.
func TestRawSystemCallsStayInTheirPackage(t *testing.T) {
	allowed := []string{"internal/linux/", "internal/serve/channel/"} // the latter: futex, on the path of every inference
	for _, s := range sources(t) {
		if s.test() || slices.ContainsFunc(allowed, func(a string) bool { return strings.HasPrefix(s.path, a) }) {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			from, ok := sel.X.(*ast.Ident)
			if ok && (from.Name == "unix" || from.Name == "syscall") && slices.Contains([]string{"Syscall", "Syscall6", "RawSyscall", "RawSyscall6"}, sel.Sel.Name) {
				t.Errorf("%s: raw system call outside internal/linux", s.at(sel))
			}
			return true
		})
	}
}

// TestSkipsGiveAReason finds tests that skip without a word.
// What a power failure must not lose gets its name by internal/durable.
func TestRenamesAreDurable(t *testing.T) {
	allowed := map[string]string{
		"internal/durable/durable.go":    "it is that package",
		"internal/journal/writer.go":     "a journal's parts: a lost line is only a lost line, and a sync for each would wear the disk",
		"internal/boot/pid1.go":          "facts of this boot, in memory",
		"internal/boot/spawn.go":         "the log of a child, which may be lost",
		"internal/boot/esp.go":           "flushes the whole file system afterwards",
		"internal/update/slot/device.go": "its callers flush the whole file system afterwards",
		"internal/container/files.go":    "secrets, in memory",
	}
	for _, s := range sources(t) {
		if s.test() || s.generated || allowed[s.path] != "" || !strings.Contains(s.text, "os.Rename(") {
			continue
		}
		t.Errorf("%s: os.Rename may lose the file at a power failure: use internal/durable", s.path)
	}
}

func TestSkipsGiveAReason(t *testing.T) {
	for _, s := range sources(t) {
		if !s.test() {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			sel, ok := call.Fun.(*ast.SelectorExpr)
			if ok && (sel.Sel.Name == "SkipNow" || sel.Sel.Name == "Skip" && len(call.Args) == 0) {
				t.Errorf("%s: a skipped test says which capability is missing", s.at(call))
			}
			return true
		})
	}
}
