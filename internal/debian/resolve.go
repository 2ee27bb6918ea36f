package debian

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"oscine.dev/oscine/internal/pattern"
)

// Newest returns the newest record whose whole name matches pattern, for arch
// or for all architectures, in one of suites. An empty list of suites allows
// any.
func (x *Index) Newest(pattern *regexp.Regexp, arch string, suites ...string) (Record, bool) {
	var best Record
	for _, r := range x.Records {
		if r.Arch != arch && r.Arch != "all" || len(suites) > 0 && !slices.Contains(suites, r.Suite) {
			continue
		}
		if pattern.FindString(r.Name) != r.Name {
			continue
		}
		if best.Name == "" || CompareVersions(r.Version, best.Version) > 0 {
			best = r
		}
	}
	return best, best.Name != ""
}

// Closure returns the records of names and of everything they depend on,
// except what skip refuses, in an order in which each comes after the packages
// that name it. Of alternatives the first that exists is taken; Recommends are
// not followed.
func (x *Index) Closure(arch, suite string, names []string, skip func(string) bool) ([]Package, error) {
	byName, providers := map[string]Record{}, map[string]string{}
	for _, r := range x.Records {
		if r.Suite != suite || r.Arch != arch && r.Arch != "all" {
			continue
		}
		if old, ok := byName[r.Name]; !ok || CompareVersions(r.Version, old.Version) > 0 {
			byName[r.Name] = r
		}
		for _, p := range dependencies(r.Provides) {
			providers[p[0]] = r.Name
		}
	}
	pick := func(alternatives []string) (Record, bool) {
		for _, name := range alternatives {
			if r, ok := byName[name]; ok {
				return r, true
			}
		}
		for _, name := range alternatives {
			if r, ok := byName[providers[name]]; ok {
				return r, true
			}
		}
		return Record{}, false
	}
	var out []Package
	seen := map[string]bool{}
	for queue := names; len(queue) > 0; queue = queue[1:] {
		if seen[queue[0]] || skip(queue[0]) {
			continue
		}
		r, ok := byName[queue[0]]
		if !ok {
			return nil, fmt.Errorf("%s is not in %s for %s", queue[0], suite, arch)
		}
		seen[r.Name] = true
		out = append(out, r.Package)
		for _, alternatives := range dependencies(r.Depends) {
			dep, ok := pick(alternatives)
			if !ok {
				return nil, fmt.Errorf("%s depends on %v, which %s lacks for %s", r.Name, alternatives, suite, arch)
			}
			queue = append(slices.Clip(queue), dep.Name)
		}
	}
	return out, nil
}

// dependencies reads a relationship field (Debian Policy §7.1) into lists of
// alternatives, without their version restrictions.
func dependencies(field string) [][]string {
	var out [][]string
	for part := range strings.SplitSeq(field, ",") {
		var names []string
		for alt := range strings.SplitSeq(part, "|") {
			name, _, _ := strings.Cut(strings.TrimSpace(alt), " ")
			if name, _, _ = strings.Cut(name, ":"); name != "" {
				names = append(names, name)
			}
		}
		if len(names) > 0 {
			out = append(out, names)
		}
	}
	return out
}

// kernelVersion is the part of a kernel package's name that changes from one
// version to the next: linux-modules-7.2.12+deb13-cloud-amd64.
var kernelVersion = pattern.New(`\d+\.\d+(\.\d+)?\+deb\d+`)

// newest replaces the packages of set that a mirror lacks by their newest
// versions, and says so. A kernel and its modules are replaced together.
func (s *Source) newest(ctx context.Context, set Set, lost []Package) (Set, error) {
	fmt.Fprintf(s.log, "%s did not give the pinned %s %s: look for the newest instead\n", s.mirror, lost[0].Name, lost[0].Version)
	var suites []string
	kernel := false
	for _, p := range set.Packages {
		if !slices.Contains(suites, p.Suite) {
			suites = append(suites, p.Suite)
		}
	}
	for _, p := range lost {
		kernel = kernel || kernelVersion.MatchString(p.Name)
	}
	index, err := ReadIndex(ctx, s.mirror, suites, []string{set.Arch})
	if err != nil {
		return Set{}, err
	}
	out := Set{Name: set.Name, Arch: set.Arch}
	for _, p := range set.Packages {
		isKernel := kernelVersion.MatchString(p.Name)
		if !slices.Contains(lost, p) && !(kernel && isKernel) {
			out.Packages = append(out.Packages, p)
			continue
		}
		pattern := regexp.QuoteMeta(p.Name)
		if isKernel {
			loc := kernelVersion.Regexp().FindStringIndex(p.Name)
			pattern = regexp.QuoteMeta(p.Name[:loc[0]]) + kernelVersion.String() + regexp.QuoteMeta(p.Name[loc[1]:])
		}
		r, ok := index.Newest(regexp.MustCompile(pattern), set.Arch, p.Suite)
		if !ok {
			return Set{}, fmt.Errorf("%s has no package like %s in %s", s.mirror, p.Name, p.Suite)
		}
		fmt.Fprintf(s.log, "take %s %s in place of the pinned %s %s\n", r.Name, r.Version, p.Name, p.Version)
		out.Packages = append(out.Packages, r.Package)
	}
	return out, nil
}
