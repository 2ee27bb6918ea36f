package hardwaretest

import (
	"iter"
	"maps"
	"slices"
	"strings"
)

// spoilers are ways to spoil the contents of a file.
var spoilers = map[string]func(content string) string{
	"empty":      func(string) string { return "" },
	"negative":   func(string) string { return "-1" },
	"huge":       func(string) string { return "99999999999999999999" },
	"large":      func(string) string { return "4294967295" },
	"binary":     func(string) string { return "\xff\x00\xfe\x80" },
	"words":      func(string) string { return "no such thing" },
	"all":        func(string) string { return strings.Repeat("ffffffff,", 300) + "ffffffff" },
	"long":       func(string) string { return strings.Repeat("7", 8000) },
	"ranges":     func(string) string { return "0-65535,70000,9-3" },
	"zero":       func(string) string { return "0" },
	"one":        func(string) string { return "1" },
	"slashes":    func(string) string { return "DEVNAME=../../etc/passwd\n../../x" },
	"first half": func(c string) string { return c[:len(c)/2] },
	"twice":      func(c string) string { return c + c },
}

// Spoiled yields copies of a machine whose files are spoiled in many ways,
// first all of them and then each third.
func Spoiled(from *Tree) iter.Seq2[string, *Tree] {
	parts := []string{"all files", "files 1, 4, 7…", "files 2, 5, 8…", "files 3, 6, 9…"}
	return func(yield func(string, *Tree) bool) {
		names := slices.Sorted(maps.Keys(from.Files))
		for how, spoil := range spoilers {
			for turn, part := range parts {
				tree := NewTree()
				for i, name := range names {
					content := from.Files[name]
					if turn == 0 || i%3 == turn-1 {
						content = spoil(content)
					}
					tree.Files[name] = content
				}
				tree.Links = maps.Clone(from.Links)
				if !yield(how+" in "+part, tree) {
					return
				}
			}
		}
	}
}
