package rules

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
)

// archaic matches turns that a native speaker reads twice, in comments,
// messages and documents. Say "again", "anyone who", "forever", "reports",
// "because" instead.
var archaic = regexp.MustCompile(`(?i)\b(anew|whoever|wholly|thereof|whereof|whence|hitherto|afar|of before|for ever|` +
	`belongs? into|what is so|nobody asks|good manners|as people (say|call|type) (it|them)|` +
	`(it|they|node|daemon|kernel|driver|which|that|who) (tells?|told) of|(is|are) told of|no more use|another than|of late|all told)\b`)

func TestWordsAreRead(t *testing.T) {
	for _, path := range tracked(t) {
		if !slices.Contains([]string{".go", ".md", ".sh", ".proto", ".c", ".h", ".txtar", ""}, filepath.Ext(path)) ||
			path == "LICENSE" || path == "internal/rules/words_test.go" {
			continue
		}
		if _, err := os.Stat(filepath.Join(root, path)); err != nil {
			continue
		}
		text := readFile(t, path)
		if bytes.Contains(text, []byte{0}) {
			continue
		}
		for i, line := range bytes.Split(text, []byte("\n")) {
			if found := archaic.Find(line); found != nil {
				t.Errorf("%s:%d: %q is hard to read: use plain English", path, i+1, found)
			}
		}
	}
}
