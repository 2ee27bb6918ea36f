package licence

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

func fixture(t testing.TB, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

const mit = `Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the "Software"), to deal
in the Software without restriction, including without limitation the rights
to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
SOFTWARE.
`

// field makes a text the value of a field of a copyright file.
func field(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line == "" {
			line = "."
		}
		b.WriteString(" " + line + "\n")
	}
	return b.String()
}

const dep5 = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\n"

func TestOfCopyright(t *testing.T) {
	ownText := "Do with it what your grandmother would allow."
	own := reference("Grandmother", ownText).id
	exceptionText := "GPL 2 or later, and you may link it with the example library."
	exception := reference("GPL-2+ with Example exception", exceptionText).id
	for _, c := range []struct{ name, text, want string }{
		{"one name", dep5 + "Files: *\nCopyright: x\nLicense: GPL-2+\n", "GPL-2.0-or-later"},
		{"names of old", dep5 + "Files: *\nLicense: LGPL-2.1\n\nFiles: a\nLicense: Expat\n", "LGPL-2.1-only AND MIT"},
		{"each once", dep5 + "Files: *\nLicense: zlib\n\nFiles: a\nLicense: Zlib\n", "Zlib"},
		{"alternatives", dep5 + "Files: *\nLicense: BSD-3-clause or GPL-2\n\nFiles: a\nLicense: ISC\n", "(BSD-3-Clause OR GPL-2.0-only) AND ISC"},
		{"and binds closer", dep5 + "Files: *\nLicense: Expat or ISC and Zlib\n", "MIT OR (ISC AND Zlib)"},
		{"a comma binds least", dep5 + "Files: *\nLicense: GPL-1+ or Artistic, and Expat\n", "(GPL-1.0-or-later OR Artistic-1.0-Perl) AND MIT"},
		{"a known exception", dep5 + "Files: *\nLicense: GPL-2 with Linux-syscall-note exception\n", "GPL-2.0-only WITH Linux-syscall-note"},
		{"an exception of its own", dep5 + "Files: *\nLicense: GPL-2+ with Example exception\n" + field(exceptionText), exception},
		{"a text of its own below the name", dep5 + "Files: *\nLicense: Grandmother\n" + field(ownText), own},
		{"a text of its own in its paragraph", dep5 + "Files: *\nLicense: Grandmother or Expat\n\nLicense: Grandmother\n" + field(ownText), own + " OR MIT"},
		{"a name of its own for a known text", dep5 + "Files: *\nLicense: MIT-X11\n\nLicense: MIT-X11\n" + field(mit), "MIT"},
		{"the header alone", strings.TrimSpace(dep5) + "\nLicense: Apache-2.0\n", "Apache-2.0"},
		{"Windows lines and a tab", strings.ReplaceAll(dep5+"files:\t*\nLICENSE: ISC\n", "\n", "\r\n"), "ISC"},
		{"prose with a known text", "This is the Debian package of x.\n\n" + mit, "MIT"},
		{"prose", "Ask its author.\n", reference("", "Ask its author.\n").id},
	} {
		got, err := OfCopyright(c.text)
		if err != nil || got.Expression != c.want {
			t.Errorf("%s: got %q, %v; want %q", c.name, got.Expression, err, c.want)
		}
		for _, ref := range got.References() {
			if !strings.Contains(got.Expression, ref) || got.Texts[ref].Text == "" {
				t.Errorf("%s: %s is not in the expression, or has no text", c.name, ref)
			}
		}
	}
	got, err := OfCopyright(dep5 + "Files: *\nLicense: Grandmother\n" + field(ownText))
	if want := (Licence{Expression: own, Texts: map[string]Text{own: {"Grandmother", ownText}}}); err != nil || !cmp.Equal(got, want) {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
}

func TestCopyrightIsBounded(t *testing.T) {
	for name, text := range map[string]string{
		"bytes":      dep5 + strings.Repeat("x", maxText),
		"paragraphs": dep5 + strings.Repeat("A: b\n\n", maxParagraphs),
	} {
		if l, err := OfCopyright(text); err == nil || !strings.Contains(err.Error(), "more than") && !strings.Contains(err.Error(), "at most") {
			t.Errorf("%s: got %+v, %v", name, l, err)
		}
	}
}

func TestUnknownPartsKeepTheText(t *testing.T) {
	text := mit + strings.Repeat("And you owe the author of each program that you write with it a song. ", 30)
	got := recognise("LICENSE", text).licence()
	ref := reference("", text).id
	if got.Expression != "MIT AND "+ref || got.Texts[ref].Text != text {
		t.Errorf("got %q", got.Expression)
	}
}

func TestOfModule(t *testing.T) {
	file := func(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }
	zlib := fixture(t, "zlib.txt")
	for name, c := range map[string]struct {
		files fstest.MapFS
		want  string
	}{
		"one":           {fstest.MapFS{"LICENSE": file("Copyright x\n" + mit)}, "MIT"},
		"other names":   {fstest.MapFS{"licence.md": file(mit), "COPYING-ZLIB": file(zlib)}, "Zlib AND MIT"},
		"two in one":    {fstest.MapFS{"LICENSE.txt": file(mit + "\n" + zlib)}, "MIT AND Zlib"},
		"documentation": {fstest.MapFS{"LICENSE": file(mit), "LICENSE.docs": file(zlib), "license.go": file(zlib), "README": file(zlib)}, "MIT"},
		"below":         {fstest.MapFS{"x/LICENSE": file(mit)}, ""},
	} {
		if got, err := OfModule(c.files); err != nil || got.Expression != c.want {
			t.Errorf("%s: got %q, %v; want %q", name, got.Expression, err, c.want)
		}
	}
	if _, err := OfModule(fstest.MapFS{"LICENSE": file(strings.Repeat("x", maxText+1))}); err == nil {
		t.Error("a licence file of more than 4 MiB is read")
	}
	many := fstest.MapFS{}
	for i := range maxFiles + 1 {
		many["LICENSE-"+strings.Repeat("x", i)] = file(mit)
	}
	if _, err := OfModule(many); err == nil {
		t.Error("a module of endless licence files is read")
	}
}

func TestFindModules(t *testing.T) {
	m, err := OpenModules(t.Context(), ".")
	if err != nil {
		t.Skipf("needs the go command: %v", err)
	}
	if got, err := m.Find(Std, ""); err != nil || got.Expression != "BSD-3-Clause" {
		t.Errorf("Go's library: %q, %v", got.Expression, err)
	}
	dir := t.TempDir()
	m = &Modules{cache: dir, std: dir}
	folder := filepath.Join(dir, "example.com", "!some!one", "x@v1.0.0")
	if err := errors.Join(os.MkdirAll(folder, 0o755), os.WriteFile(filepath.Join(folder, "LICENSE"), []byte(mit), 0o644)); err != nil {
		t.Fatal(err)
	}
	if got, err := m.Find("example.com/SomeOne/x", "v1.0.0"); err != nil || got.Expression != "MIT" {
		t.Errorf("got %q, %v", got.Expression, err)
	}
	for _, c := range [][2]string{{"example.com/SomeOne/x", "v1.0.1"}, {Std, ""}, {"../../etc", "v1"}, {"example.com/x", "../v1"}} {
		none := m
		if c[0] == Std {
			none = &Modules{}
		}
		if got, err := none.Find(c[0], c[1]); err == nil {
			t.Errorf("%v: got %q", c, got.Expression)
		}
	}
	if _, err := m.Find("example.com/SomeOne/x", "v1.0.1"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a module that is not there: %v", err)
	}
}

func FuzzOfCopyright(f *testing.F) {
	recognise("", mit) // prepares the licences, which takes longer than one input may
	f.Add(dep5 + "Files: *\nLicense: GPL-2+ or Expat, and Own\n text\n .\n more\n\nLicense: Own\n x\n")
	f.Add(dep5 + "Files: *\nLicense: or and , with exception\n")
	f.Add(mit)
	f.Fuzz(func(t *testing.T, text string) {
		l, err := OfCopyright(text)
		if err != nil {
			return
		}
		if strings.Count(l.Expression, "(") != strings.Count(l.Expression, ")") || strings.ContainsAny(l.Expression, "\n,") {
			t.Errorf("%q is no expression", l.Expression)
		}
		for _, ref := range l.References() {
			if !strings.Contains(l.Expression, ref) {
				t.Errorf("%s is not in %q", ref, l.Expression)
			}
		}
		if again, err := OfCopyright(text); err != nil || !cmp.Equal(l, again) {
			t.Errorf("two readings differ: %+v and %+v", l, again)
		}
	})
}
