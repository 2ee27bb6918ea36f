package debian

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// Record is one stanza of a Packages index (Debian Policy §5.3): the package
// and what is needed to resolve dependencies.
type Record struct {
	Package
	Depends  string // Pre-Depends and Depends, joined by a comma
	Provides string
}

// Index is what a mirror offers in some suites, verified by apt with Debian's
// archive keyring.
type Index struct {
	Records []Record
}

// keyrings are where Debian's archive keys lie on Debian itself and on systems
// with the debian-archive-keyring package.
var keyrings = [...]string{
	"/usr/share/keyrings/debian-archive-keyring.gpg",
	"/usr/share/keyrings/debian-archive-keyring.pgp",
	"/etc/apt/trusted.gpg.d/debian-archive-keyring.gpg",
}

// ReadIndex fetches the indexes of suites for arches with a private apt
// configuration: nothing of the host's own package lists is read or changed.
// It needs apt and Debian's archive keyring.
func ReadIndex(ctx context.Context, mirror string, suites, arches []string) (*Index, error) {
	keyring := ""
	for _, file := range keyrings {
		if _, err := os.Stat(file); err == nil {
			keyring = file
			break
		}
	}
	if _, err := exec.LookPath("apt-get"); err != nil || keyring == "" {
		return nil, errors.New("the mirror's index cannot be verified here: it needs apt and debian-archive-keyring")
	}
	dir, err := os.MkdirTemp("", "oscine-apt-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	for _, sub := range []string{"lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return nil, err
		}
	}
	var list strings.Builder
	for _, suite := range suites {
		fmt.Fprintf(&list, "deb [arch=%s signed-by=%s] %s %s main contrib non-free non-free-firmware\n", strings.Join(arches, ","), keyring, mirror, suite)
	}
	if err := os.WriteFile(filepath.Join(dir, "sources.list"), []byte(list.String()), 0o644); err != nil {
		return nil, err
	}
	if _, err := privateApt(ctx, dir, "update", "-q"); err != nil {
		return nil, err
	}
	targets, err := privateApt(ctx, dir, "indextargets", "--format", "$(RELEASE)|$(FILENAME)", "Identifier: Packages")
	if err != nil {
		return nil, err
	}
	index := &Index{}
	for line := range strings.Lines(string(targets)) {
		suite, file, ok := strings.Cut(strings.TrimSpace(line), "|")
		if !ok {
			continue
		}
		text, err := exec.CommandContext(ctx, aptHelper, "cat-file", file).Output()
		if err != nil {
			return nil, fmt.Errorf("read the index of %s: %w", suite, err)
		}
		records, err := ParsePackages(strings.NewReader(string(text)), suite)
		if err != nil {
			return nil, fmt.Errorf("read the index of %s: %w", suite, err)
		}
		index.Records = append(index.Records, records...)
	}
	return index, nil
}

func privateApt(ctx context.Context, dir string, args ...string) ([]byte, error) {
	options := []string{
		"-o", "Dir::Etc::sourcelist=" + filepath.Join(dir, "sources.list"), "-o", "Dir::Etc::sourceparts=/dev/null",
		"-o", "Dir::State=" + dir, "-o", "Dir::State::lists=" + filepath.Join(dir, "lists"), "-o", "Dir::State::status=/dev/null",
		"-o", "Dir::Cache=" + filepath.Join(dir, "cache"), "-o", "APT::Sandbox::User=root", "-o", "Acquire::Languages=none",
		"-o", "APT::Update::Post-Invoke=", "-o", "APT::Update::Post-Invoke-Success=",
		"-o", "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false", "-o", "Acquire::IndexTargets::deb::CNF::DefaultEnabled=false",
	}
	cmd := exec.CommandContext(ctx, "apt-get", append(options, args...)...)
	var failed strings.Builder
	cmd.Stderr = &failed
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("apt-get %s: %w: %s", args[0], err, lastLine([]byte(failed.String())))
	}
	return out, nil
}

// ParsePackages reads a Packages file. Stanzas that lack a field, or whose
// fields would lead out of the pool, are errors.
func ParsePackages(r io.Reader, suite string) ([]Record, error) {
	var records []Record
	scan := bufio.NewScanner(r)
	scan.Buffer(make([]byte, 0, 64<<10), 4<<20)
	fields := map[string]string{}
	end := func() error {
		if len(fields) == 0 {
			return nil
		}
		size, err := strconv.ParseInt(fields["Size"], 10, 64)
		if err != nil {
			return fmt.Errorf("package %q: size %q is not a number", fields["Package"], fields["Size"])
		}
		rec := Record{Package: Package{
			Name: fields["Package"], Version: fields["Version"], Arch: fields["Architecture"], Suite: suite,
			Path: fields["Filename"], Size: size, SHA256: fields["SHA256"],
		}, Provides: fields["Provides"], Depends: strings.Trim(fields["Pre-Depends"]+","+fields["Depends"], ",")}
		clear(fields)
		if err := rec.check(); err != nil {
			return err
		}
		records = append(records, rec)
		return nil
	}
	for scan.Scan() {
		line := scan.Text()
		if line == "" {
			if err := end(); err != nil {
				return nil, err
			}
			continue
		}
		if key, value, ok := strings.Cut(line, ":"); ok && line[0] != ' ' && line[0] != '\t' {
			fields[key] = strings.TrimSpace(value)
		}
	}
	if err := scan.Err(); err != nil {
		return nil, err
	}
	return records, end()
}
