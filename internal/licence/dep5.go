package licence

import (
	"errors"
	"fmt"
	"strings"
)

// Bounds on one copyright file.
const (
	maxText       = 4 << 20 // bytes; that of the largest package of Debian has 1.5 MiB
	maxParagraphs = 20_000
)

// errNotDEP5 tells that a text is not in the format of copyrightFile.
var errNotDEP5 = errors.New("not a machine-readable copyright file")

// copyrightFile is a machine-readable Debian copyright file
// (https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/).
type copyrightFile struct {
	header string            // synopsis of the whole, or empty
	files  []grant           // a Files paragraph each
	texts  map[string]string // of stand-alone License paragraphs, by their synopsis in lower case
}

// grant is the License field of a paragraph.
type grant struct{ synopsis, text string }

// parseCopyright reads a copyright file. One in another format gives an error
// that is errNotDEP5.
func parseCopyright(text string) (*copyrightFile, error) {
	if len(text) > maxText {
		return nil, fmt.Errorf("a copyright file of %d bytes: at most %d are accepted", len(text), maxText)
	}
	c := &copyrightFile{texts: map[string]string{}}
	n := 0
	for fields := range paragraphs(text) {
		if n++; n > maxParagraphs {
			return nil, fmt.Errorf("a copyright file of more than %d paragraphs", maxParagraphs)
		}
		if n == 1 {
			if !isFormat(fields["format"]) && !isFormat(fields["format-specification"]) {
				return nil, errNotDEP5
			}
		}
		value, ok := fields["license"]
		if !ok {
			continue
		}
		g := parseGrant(value)
		_, files := fields["files"]
		switch {
		case files:
			c.files = append(c.files, g)
		case n == 1:
			c.header = g.synopsis
		case g.text != "":
			c.texts[strings.ToLower(g.synopsis)] = g.text
		}
	}
	if n == 0 || len(c.files) == 0 && c.header == "" {
		return nil, errNotDEP5
	}
	return c, nil
}

func isFormat(value string) bool {
	value = strings.ToLower(value)
	return strings.Contains(value, "copyright-format") || strings.Contains(value, "/dep5") || strings.Contains(value, "/dep/deps/dep5")
}

// parseGrant divides a License field into its first line and the text below it,
// in which a lone point stands for an empty line.
func parseGrant(value string) grant {
	first, rest, _ := strings.Cut(value, "\n")
	var text strings.Builder
	for line := range strings.Lines(rest) {
		line = strings.TrimRight(line, "\r\n")
		if strings.TrimSpace(line) == "." {
			line = ""
		}
		text.WriteString(strings.TrimPrefix(line, " ") + "\n")
	}
	return grant{strings.Join(strings.Fields(first), " "), strings.TrimSpace(text.String())}
}

// paragraphs yields the fields of each paragraph, by their names in lower case
// (Debian Policy, 5.1). What is no field is passed over.
func paragraphs(text string) func(yield func(map[string]string) bool) {
	return func(yield func(map[string]string) bool) {
		fields, lines, name := map[string]string{}, []string(nil), ""
		end := func() {
			if name != "" {
				fields[name] = strings.Join(lines, "\n")
			}
			name, lines = "", nil
		}
		for line := range strings.Lines(text + "\n\n") {
			line = strings.TrimRight(line, "\r\n")
			switch {
			case strings.TrimSpace(line) == "":
				end()
				if len(fields) > 0 && !yield(fields) {
					return
				}
				fields = map[string]string{}
			case line[0] == ' ' || line[0] == '\t':
				lines = append(lines, line)
			default:
				end()
				if before, after, ok := strings.Cut(line, ":"); ok && !strings.ContainsAny(before, " \t") {
					name, lines = strings.ToLower(before), []string{strings.TrimSpace(after)}
				}
			}
		}
	}
}
