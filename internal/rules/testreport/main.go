package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"
)

func main() {
	// On a fresh machine minutes pass before go test writes anything.
	fmt.Fprintln(os.Stderr, "go test builds the tests first, then tells each package's outcome:")
	passed, err := run(os.Args[1:], os.Stdin, os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "testreport:", err)
		os.Exit(2)
	}
	if !passed {
		os.Exit(1)
	}
}

func run(args []string, in io.Reader, out io.Writer) (passed bool, err error) {
	flags := flag.NewFlagSet("testreport", flag.ContinueOnError)
	list := flags.String("skips", "", "file with the skips that are allowed; without it all are, and told by their reasons")
	slowest := flags.Int("slowest", 10, "how many of the slowest tests to name")
	if err := flags.Parse(args); err != nil {
		return false, err
	}
	r := &report{out: out, output: map[test]string{}, open: map[string]bool{}}
	if *list != "" {
		text, err := os.ReadFile(*list)
		if err != nil {
			return false, err
		}
		if r.allowed, err = parseAllowed(string(text)); err != nil {
			return false, fmt.Errorf("%s: %w", *list, err)
		}
		r.judged = true
	}
	if err := r.read(in); err != nil {
		return false, err
	}
	return r.finish(*slowest), nil
}

// parseAllowed reads the list: a regular expression for a whole skip on each
// line, as "PACKAGE.TEST: what the test said". Comments begin with #.
func parseAllowed(text string) (allowed []*regexp.Regexp, err error) {
	for i, line := range strings.Split(text, "\n") {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		re, err := regexp.Compile("^(?:" + line + ")$")
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", i+1, err)
		}
		allowed = append(allowed, re)
	}
	return allowed, nil
}

// event is one line of go test -json; see go doc test2json.
type event struct {
	Action     string
	Package    string
	ImportPath string // of build-output and build-fail
	Test       string
	Output     string
	Elapsed    float64 // seconds
}

// test names a test; the name is empty for the package as a whole.
type test struct{ pkg, name string }

func (t test) String() string {
	return strings.TrimPrefix(strings.TrimPrefix(t.pkg, "oscine.dev/oscine/")+"."+t.name, ".")
}

type report struct {
	out     io.Writer
	judged  bool // a skip that is not allowed is a failure
	allowed []*regexp.Regexp
	output  map[test]string
	open    map[string]bool // packages that have not ended
	packages,
	tests, failed int
	skips   []string
	elapsed []timed
}

type timed struct {
	test test
	took time.Duration
}

func (r *report) read(in io.Reader) error {
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadString('\n')
		if line != "" {
			var e event
			if json.Unmarshal([]byte(line), &e) == nil && e.Action != "" {
				r.take(e)
			} else {
				r.print(line) // go test's own words
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (r *report) print(text string) {
	_, _ = io.WriteString(r.out, text) // the exit status tells the same
}

func (r *report) take(e event) {
	t := test{e.Package, e.Test}
	switch e.Action {
	case "start":
		r.open[e.Package] = true
	case "build-output":
		r.print(e.Output)
	case "build-fail":
		r.failed++
	case "output":
		switch {
		case t.name != "":
			r.output[t] += e.Output
		case e.Output != "PASS\n":
			r.print(e.Output)
		}
	case "pass", "fail", "skip":
		r.end(t, e)
	}
}

func (r *report) end(t test, e event) {
	if t.name == "" {
		delete(r.open, t.pkg)
		if e.Action != "skip" { // a package without tests
			r.packages++
		}
		if e.Action == "fail" {
			r.failed++
		}
		return
	}
	r.tests++
	text := r.output[t]
	delete(r.output, t)
	r.elapsed = append(r.elapsed, timed{t, time.Duration(e.Elapsed * float64(time.Second))})
	switch e.Action {
	case "fail":
		r.failed++
		r.print(text)
	case "skip":
		r.skips = append(r.skips, t.String()+": "+skipReason(text))
	}
	r.skips = append(r.skips, guestSkips(t, text)...)
}

var (
	logged  = regexp.MustCompile(`(?m)^ *[\w-]+\.go:\d+: `)
	verdict = regexp.MustCompile(`^ *--- SKIP: (\S+)`)
)

// skipReason is what a skipped test said last, on one line.
func skipReason(output string) string {
	if i := strings.LastIndex(output, "--- SKIP: "); i >= 0 {
		output = output[:i]
	}
	at := logged.FindAllStringIndex(output, -1)
	if len(at) == 0 {
		return ""
	}
	return strings.Join(strings.Fields(output[at[len(at)-1][1]:]), " ")
}

// guestSkips finds the skipped tests of a test program that ran in a guest,
// whose console is in the log of the test that booted it.
func guestSkips(t test, output string) (skips []string) {
	reason := ""
	for line := range strings.Lines(output) {
		i := logged.FindStringIndex(line)
		if i == nil {
			continue
		}
		line = strings.TrimRight(line[i[1]:], "\n")
		if m := verdict.FindStringSubmatch(line); m != nil {
			skips = append(skips, t.String()+"/"+m[1]+": "+reason)
		} else if i := logged.FindStringIndex(line); i != nil {
			reason = line[i[1]:]
		}
	}
	return skips
}

// tellSkips prints each reason of skips once, with its test or how many there are.
func (r *report) tellSkips() {
	tests := map[string][]string{}
	for _, skip := range r.skips {
		name, reason, _ := strings.Cut(skip, ": ")
		tests[reason] = append(tests[reason], name)
	}
	for _, reason := range slices.Sorted(maps.Keys(tests)) {
		who := tests[reason][0]
		if n := len(tests[reason]); n > 1 {
			who = fmt.Sprintf("%d tests", n)
		}
		r.print(fmt.Sprintf("  %s: %s\n", who, reason))
	}
}

// finish prints the summary and tells whether all is well.
func (r *report) finish(slowest int) bool {
	for pkg := range r.open {
		r.print("FAIL\t" + pkg + ": its tests did not end\n")
		r.failed++
	}
	slices.SortStableFunc(r.elapsed, func(a, b timed) int { return int(b.took - a.took) })
	r.print("\nThe slowest tests:\n")
	for _, t := range r.elapsed[:min(slowest, len(r.elapsed))] {
		r.print(fmt.Sprintf("%9.1f s  %s\n", t.took.Seconds(), t.test))
	}
	slices.Sort(r.skips)
	if !r.judged {
		r.print(fmt.Sprintf("%d packages, %d tests, %d failures, %d skipped\n", r.packages, r.tests, r.failed, len(r.skips)))
		r.tellSkips()
		return r.failed == 0 && r.packages > 0
	}
	var lost []string
	for _, skip := range r.skips {
		if !slices.ContainsFunc(r.allowed, func(re *regexp.Regexp) bool { return re.MatchString(skip) }) {
			lost = append(lost, skip)
		}
	}
	r.print(fmt.Sprintf("%d packages, %d tests, %d failures, %d skipped as the list allows\n", r.packages, r.tests, r.failed, len(r.skips)-len(lost)))
	if len(lost) > 0 {
		r.print("Skipped, and not on the list: give the computer what they need, see scripts/setup.sh, or name a capability that continuous integration cannot have\n  " +
			strings.Join(lost, "\n  ") + "\n")
	}
	return r.failed == 0 && len(lost) == 0 && r.packages > 0
}
