package demo

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/image/font/gofont/gobold"
	"golang.org/x/image/font/gofont/gobolditalic"
	"golang.org/x/image/font/gofont/goitalic"
	"golang.org/x/image/font/gofont/gomedium"
	"golang.org/x/image/font/gofont/gomono"
	"golang.org/x/image/font/gofont/gomonobold"
	"golang.org/x/image/font/gofont/gomonoitalic"
	"golang.org/x/image/font/gofont/goregular"
	"golang.org/x/image/font/opentype"

	"oscine.dev/oscine/internal/debian"
)

// Font is a face to draw digits with.
type Font struct {
	Name string // such as Hack-Bold
	font *opentype.Font
}

// maxFont bounds the size of a font file in bytes.
const maxFont = 16 << 20

// GoFonts returns the faces that are part of this program.
func GoFonts() ([]Font, error) {
	var fonts []Font
	for _, f := range []struct {
		name string
		ttf  []byte
	}{
		{"Go-Regular", goregular.TTF}, {"Go-Bold", gobold.TTF}, {"Go-Italic", goitalic.TTF}, {"Go-Medium", gomedium.TTF},
		{"Go-BoldItalic", gobolditalic.TTF}, {"GoMono-Regular", gomono.TTF}, {"GoMono-Bold", gomonobold.TTF}, {"GoMono-Italic", gomonoitalic.TTF},
	} {
		font, err := opentype.Parse(f.ttf)
		if err != nil {
			return nil, fmt.Errorf("font %s: %w", f.name, err)
		}
		fonts = append(fonts, Font{f.name, font})
	}
	return fonts, nil
}

// UnseenFonts returns the faces of pinned Debian packages, and the Go fonts,
// none of which the digit reader was trained with.
func UnseenFonts(ctx context.Context, log io.Writer) ([]Font, error) {
	fonts, err := GoFonts()
	if err != nil {
		return nil, err
	}
	source, err := debian.Open(log)
	if err != nil {
		return nil, err
	}
	tree, err := source.Tree(ctx, "fonts", runtime.GOARCH)
	if err != nil {
		return nil, fmt.Errorf("fetch fonts: %w", err)
	}
	more, err := fontsBelow(filepath.Join(tree.Dir, "usr/share/fonts"))
	return append(fonts, more...), err
}

// fontsBelow parses every font file below a folder, in the order of their
// names, so that a seed gives the same pictures everywhere.
func fontsBelow(dir string) ([]Font, error) {
	var files []string
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if ext := strings.ToLower(filepath.Ext(path)); err == nil && entry.Type().IsRegular() && (ext == ".ttf" || ext == ".otf") {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("look for fonts: %w", err)
	}
	slices.Sort(files)
	var fonts []Font
	for _, file := range files {
		info, err := os.Stat(file)
		if err != nil {
			return nil, err
		}
		if info.Size() > maxFont {
			return nil, fmt.Errorf("font %s is larger than %d bytes", file, maxFont)
		}
		raw, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		font, err := opentype.Parse(raw)
		if err != nil {
			return nil, fmt.Errorf("font %s: %w", file, err)
		}
		fonts = append(fonts, Font{strings.TrimSuffix(filepath.Base(file), filepath.Ext(file)), font})
	}
	return fonts, nil
}
