package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// events writes what go test -json would.
func events(t *testing.T, all ...event) string {
	t.Helper()
	var text strings.Builder
	for _, e := range all {
		if err := json.NewEncoder(&text).Encode(e); err != nil {
			t.Fatal(err)
		}
	}
	return text.String()
}

// testOf is one test's run in package oscine.dev/oscine/internal/a.
func testOf(name, action string, output ...string) []event {
	const pkg = "oscine.dev/oscine/internal/a"
	all := []event{{Action: "run", Package: pkg, Test: name}}
	for _, line := range output {
		all = append(all, event{Action: "output", Package: pkg, Test: name, Output: line})
	}
	return append(all, event{Action: action, Package: pkg, Test: name, Elapsed: 1.5})
}

func packageOf(action string, tests ...[]event) []event {
	const pkg = "oscine.dev/oscine/internal/a"
	all := []event{{Action: "start", Package: pkg}}
	for _, one := range tests {
		all = append(all, one...)
	}
	return append(all, event{Action: "output", Package: pkg, Output: "ok  \t" + pkg + "\t2.0s\n"}, event{Action: action, Package: pkg, Elapsed: 2})
}

func TestReport(t *testing.T) {
	list := filepath.Join(t.TempDir(), "skips.txt")
	if err := os.WriteFile(list, []byte("# No GPU.\ninternal/a\\.TestGPU: needs a GPU.*\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	gpu := testOf("TestGPU", "skip", "=== RUN   TestGPU\n", "    a_test.go:5: needs a GPU,\n", "        and its driver\n", "--- SKIP: TestGPU (0.00s)\n")
	for _, tc := range []struct {
		name   string
		input  string
		passed bool
		words  []string
	}{
		{"all well", events(t, packageOf("pass", testOf("TestGood", "pass"))...), true,
			[]string{"ok  \toscine.dev/oscine/internal/a\t2.0s\n", "1 packages, 1 tests, 0 failures", "1.5 s  internal/a.TestGood\n"}},
		{"a skip of the list", events(t, packageOf("pass", gpu)...), true, []string{"1 skipped as the list allows"}},
		{"another reason", events(t, packageOf("pass", testOf("TestGPU", "skip", "    a_test.go:5: needs root\n"))...), false,
			[]string{"not on the list", "internal/a.TestGPU: needs root"}},
		{"a skip without a reason", events(t, packageOf("pass", testOf("TestMute", "skip"))...), false, []string{"internal/a.TestMute: "}},
		{"a skip in a guest", events(t, packageOf("pass", testOf("TestInMachine", "pass",
			"    guesttest.go:88: === RUN   TestKernelDisk\n", "    guesttest.go:88:     io_test.go:19: the guest has no disk\n",
			"    guesttest.go:88: --- SKIP: TestKernelDisk (0.00s)\n"))...), false,
			[]string{"internal/a.TestInMachine/TestKernelDisk: the guest has no disk"}},
		{"a failure", events(t, packageOf("fail", testOf("TestBad", "fail", "    a_test.go:7: got 1, want 2\n"))...), false, []string{"got 1, want 2"}},
		{"a package that does not build", events(t, event{Action: "build-output", ImportPath: "a", Output: "a.go:1: syntax error\n"},
			event{Action: "build-fail", ImportPath: "a"}), false, []string{"syntax error"}},
		{"a package that does not end", events(t, packageOf("pass", testOf("TestGood", "pass"))[:3]...), false, []string{"did not end"}},
		{"nothing at all", "go: no such package\n", false, []string{"go: no such package\n"}},
	} {
		var out strings.Builder
		passed, err := run([]string{"-skips", list}, strings.NewReader(tc.input), &out)
		if err != nil || passed != tc.passed {
			t.Errorf("%s: got %t, %v, want %t\n%s", tc.name, passed, err, tc.passed, &out)
		}
		for _, word := range tc.words {
			if !strings.Contains(out.String(), word) {
				t.Errorf("%s: the report lacks %q:\n%s", tc.name, word, &out)
			}
		}
	}
}

// Without a list, as make test-fast has none, skips are told and not judged.
func TestReportWithoutList(t *testing.T) {
	vm := []string{"    a_test.go:9: boots a machine: set X=1\n"}
	input := events(t, packageOf("pass", testOf("TestVM", "skip", vm...), testOf("TestOtherVM", "skip", vm...),
		testOf("TestRoot", "skip", "    a_test.go:5: needs root\n"))...)
	var out strings.Builder
	if passed, err := run(nil, strings.NewReader(input), &out); err != nil || !passed {
		t.Errorf("got %t, %v\n%s", passed, err, &out)
	}
	if want := "3 skipped\n  2 tests: boots a machine: set X=1\n  internal/a.TestRoot: needs root\n"; !strings.HasSuffix(out.String(), want) {
		t.Errorf("the report does not end with %q:\n%s", want, &out)
	}
	bad := events(t, packageOf("fail", testOf("TestBad", "fail"))...)
	if passed, err := run(nil, strings.NewReader(bad), &out); err != nil || passed {
		t.Errorf("a failure: got %t, %v", passed, err)
	}
}

// TestTheList parses the tree's own list, and wants a reason above each entry.
func TestTheList(t *testing.T) {
	text, err := os.ReadFile("skips.txt")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parseAllowed(string(text)); err != nil {
		t.Error(err)
	}
	explained := false
	for i, line := range strings.Split(string(text), "\n") {
		switch {
		case line == "":
			explained = false
		case line[0] == '#':
			explained = true
		case !explained:
			t.Errorf("line %d has no comment with its reason above", i+1)
		}
	}
	if _, err := parseAllowed("("); err == nil {
		t.Error("a broken expression was accepted")
	}
}
