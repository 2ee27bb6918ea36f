package rules

import (
	"bytes"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// tracked lists what git keeps; the second result is false outside a checkout.
func tracked(t *testing.T) []string {
	t.Helper()
	command := exec.Command("git", "ls-files", "-z")
	command.Dir = root
	out, err := command.Output()
	if err != nil {
		t.Skipf("needs a git checkout: %v", err)
	}
	return strings.Split(strings.TrimRight(string(out), "\x00"), "\x00")
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// TestNoBinariesAreTracked allows what cannot be text: a trained model, its
// sample pictures and recorded machines, and BPF programs beside their source,
// each small.
func TestNoBinariesAreTracked(t *testing.T) {
	const limit = 512 << 10
	data := []string{".onnx", ".png", ".tar.xz", ".tar.gz", ".txz", ".zst"}
	for _, path := range tracked(t) {
		info, err := os.Lstat(filepath.Join(root, path))
		if os.IsNotExist(err) || err == nil && !info.Mode().IsRegular() {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		text := readFile(t, path)
		if !bytes.Contains(text, []byte{0}) {
			continue
		}
		if isBPF(text) && len(text) <= limit && hasSource(path) {
			continue
		}
		if !slices.ContainsFunc(data, func(end string) bool { return strings.HasSuffix(path, end) }) && !strings.Contains(path, "testdata/") {
			t.Errorf("%s is a binary file: build it or fetch it, with its digest in the tree", path)
		}
		if bytes.HasPrefix(text, []byte("\x7fELF")) || len(text) > limit {
			t.Errorf("%s is a program or larger than %d bytes", path, limit)
		}
	}
}

// isBPF knows BPF programs, which few computers have a compiler for.
func isBPF(text []byte) bool {
	const machineOffset, bpf = 18, 247 // e_machine of ELF, EM_BPF
	return bytes.HasPrefix(text, []byte("\x7fELF")) && len(text) > machineOffset && text[machineOffset] == bpf
}

// hasSource wants what a compiled file was made from beside it.
func hasSource(path string) bool {
	found, err := filepath.Glob(filepath.Join(root, filepath.Dir(path), "*.c"))
	return err == nil && len(found) > 0
}

// The words are put together here so that this file does not contain them.
var unfinished = regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME|X` + `XX|HA` + `CK)\b|//\s*no` + `lint|lint:` + `ignore|#no` + `sec|shellcheck dis` + `able`)

func TestNothingIsLeftForLaterOrSilenced(t *testing.T) {
	for _, path := range tracked(t) {
		if slices.Contains([]string{"go.sum", "LICENSE"}, path) {
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
			if found := unfinished.Find(line); found != nil {
				t.Errorf("%s:%d: contains %q", path, i+1, found)
			}
		}
	}
}

var (
	targetRE = regexp.MustCompile(`(?m)^([a-z-]+):.*## `)
	linkRE   = regexp.MustCompile(`\]\(([^)\s]+)\)`)
)

func documents(t *testing.T) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(root, "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	more, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	return append(found, more...)
}

func TestDocumentsMentionEveryTarget(t *testing.T) {
	var all strings.Builder
	for _, path := range documents(t) {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(text)
	}
	targets := targetRE.FindAllStringSubmatch(string(readFile(t, "Makefile")), -1)
	if len(targets) == 0 {
		t.Fatal("the Makefile has no documented target")
	}
	for _, m := range targets {
		mention := regexp.MustCompile(`\bmake ` + regexp.QuoteMeta(m[1]) + `\b`)
		if m[1] != "help" && !mention.MatchString(all.String()) {
			t.Errorf("no document mentions make %s", m[1])
		}
	}
}

// TestDocumentsMentionOnlyTargets finds commands that do not exist.
func TestDocumentsMentionOnlyTargets(t *testing.T) {
	known := map[string]bool{}
	for _, m := range targetRE.FindAllStringSubmatch(string(readFile(t, "Makefile")), -1) {
		known[m[1]] = true
	}
	mention := regexp.MustCompile("(?m)(?:`|^    |^\\$ )make ([a-z-]+)")
	for _, path := range documents(t) {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range mention.FindAllStringSubmatch(string(text), -1) {
			if !known[m[1]] {
				t.Errorf("%s: make %s does not exist", filepath.Base(path), m[1])
			}
		}
	}
}

func TestLinksOfDocumentsLeadSomewhere(t *testing.T) {
	for _, path := range documents(t) {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range linkRE.FindAllStringSubmatch(string(text), -1) {
			target, err := url.Parse(m[1])
			if err != nil {
				t.Errorf("%s: link %q: %v", filepath.Base(path), m[1], err)
				continue
			}
			if target.Scheme != "" || target.Path == "" {
				continue
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(path), target.Path)); err != nil {
				t.Errorf("%s: link %s leads nowhere", filepath.Base(path), m[1])
			}
		}
	}
}

// What SECURITY.md promises a test holds: each row of its table names one that
// there is.
func TestSecurityNamesItsTests(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "SECURITY.md"))
	if err != nil {
		t.Fatal(err)
	}
	declared := map[string]bool{}
	test := regexp.MustCompile(`(?m)^func (Test\w+)\(t \*testing\.T\)`)
	for _, name := range files(t) {
		if !strings.HasSuffix(name, "_test.go") {
			continue
		}
		source, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range test.FindAllSubmatch(source, -1) {
			declared[string(m[1])] = true
		}
	}
	named := regexp.MustCompile("`(Test\\w+)`")
	rows := 0
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "| threat ") {
			continue
		}
		rows++
		tests := named.FindAllStringSubmatch(line, -1)
		if len(tests) == 0 {
			t.Errorf("no test holds this promise: %s", line)
		}
		for _, m := range tests {
			if !declared[m[1]] {
				t.Errorf("there is no test %s: %s", m[1], line)
			}
		}
	}
	if rows == 0 {
		t.Error("SECURITY.md has no table of promises")
	}
}
