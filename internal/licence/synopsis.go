package licence

import (
	"strings"

	"oscine.dev/oscine/internal/pattern"
)

// names gives the SPDX identifiers of the short names that Debian's copyright
// format defines, in lower case. Those of GNU licences have a rule of their own.
// Names that mean different texts in different packages, such as BSD and
// public-domain, are missing on purpose: their text decides.
func names() map[string]string {
	m := map[string]string{"expat": "MIT", "artistic": "Artistic-1.0-Perl", "cc0": "CC0-1.0"}
	// Debian's name is SPDX's but for the case.
	for _, id := range strings.Fields(`0BSD AFL-2.1 AFL-3.0 Apache-1.0 Apache-1.1 Apache-2.0 Artistic-1.0 Artistic-2.0
		BSD-2-Clause BSD-3-Clause BSD-4-Clause BSL-1.0 CC-BY-3.0 CC-BY-4.0 CC-BY-SA-3.0 CC-BY-SA-4.0 CC0-1.0 CDDL-1.0 CDDL-1.1
		CPL-1.0 EFL-1.0 EFL-2.0 EPL-1.0 EPL-2.0 FSFAP FSFUL FSFULLR HPND ISC LPPL-1.3c MIT-0 MPL-1.1 MPL-2.0 NCSA NTP OFL-1.1
		OpenSSL PostgreSQL Python-2.0 QPL-1.0 Unicode-DFS-2015 Unicode-DFS-2016 Unlicense W3C WTFPL X11 Zlib ZPL-2.1 bzip2-1.0.6 curl`) {
		m[strings.ToLower(id)] = id
	}
	return m
}

// exceptions gives SPDX's identifiers of what follows "with" in Debian's names.
// Others than these have texts that differ from package to package.
func exceptions() map[string]string {
	return map[string]string{
		"libtool": "Libtool-exception", "linux-syscall-note": "Linux-syscall-note", "llvm": "LLVM-exception",
		"gcc-3.1": "GCC-exception-3.1", "gcc-exception-3.1": "GCC-exception-3.1", "classpath": "Classpath-exception-2.0",
	}
}

var gnuRE = pattern.New(`^(a?gpl|lgpl)-([123])(\.[01])?(\.0)?(\+|-or-later|-only)?$`)

// gnu reads names such as GPL-2+ and LGPL-2.1.
func gnu(name string) (string, bool) {
	m := gnuRE.Regexp().FindStringSubmatch(name)
	if m == nil {
		return "", false
	}
	version := m[2] + ".0"
	if m[3] == ".1" {
		version = m[2] + ".1"
	}
	id := strings.ToUpper(m[1]) + "-" + version
	switch id {
	case "GPL-1.0", "GPL-2.0", "GPL-3.0", "LGPL-2.0", "LGPL-2.1", "LGPL-3.0", "AGPL-1.0", "AGPL-3.0":
	default:
		return "", false
	}
	if m[5] == "+" || m[5] == "-or-later" {
		return id + "-or-later", true
	}
	return id + "-only", true
}

// named returns what SPDX calls a Debian short name, with its exception.
func named(name string) (terms, bool) {
	name = strings.ToLower(name)
	base, exception, with := strings.Cut(name, " with ")
	id, ok := gnu(base)
	if !ok {
		id, ok = names()[base]
	}
	if !ok || !with {
		return terms{id: id}, ok
	}
	exception = strings.TrimSuffix(strings.TrimSuffix(exception, " exception"), "-exception")
	if exception, ok = exceptions()[exception]; !ok {
		return terms{}, false
	}
	return terms{id: id + " WITH " + exception}, true
}

// resolve reads a synopsis: short names that "and", "or" and commas join. "And"
// binds closest, a comma least: "A or B, and C" is (A or B) and C. text says what
// a name means that SPDX does not have.
func resolve(synopsis string, text func(name string) string) terms {
	groups, joint := splitCommas(synopsis)
	var all []terms
	for _, group := range groups {
		var any []terms
		for _, alternative := range splitWord(group, "or") {
			var both []terms
			for _, name := range splitWord(alternative, "and") {
				both = append(both, resolveName(name, text))
			}
			any = append(any, join(and, both...))
		}
		all = append(all, join(or, any...))
	}
	return join(joint, all...)
}

// splitCommas divides at ", and " or ", or ", whichever there is; where both
// are, or a comma alone, it takes the reading that promises least: and.
func splitCommas(s string) ([]string, operator) {
	joint, alternatives := and, strings.Contains(s, ", or ")
	if alternatives && !strings.Contains(s, ", and ") {
		joint = or
	}
	var groups []string
	for _, part := range strings.Split(s, ",") {
		part = strings.TrimSpace(part)
		part = strings.TrimPrefix(strings.TrimPrefix(part, "and "), "or ")
		if part != "" {
			groups = append(groups, part)
		}
	}
	return groups, joint
}

// splitWord divides at a word.
func splitWord(s, word string) []string {
	var parts []string
	var part []string
	for _, w := range strings.Fields(s) {
		if strings.EqualFold(w, word) {
			parts, part = append(parts, strings.Join(part, " ")), nil
			continue
		}
		part = append(part, w)
	}
	return append(parts, strings.Join(part, " "))
}

// resolveName gives one short name's terms: what SPDX calls it, else what its
// text is, else the text.
func resolveName(name string, text func(string) string) terms {
	if name == "" {
		return terms{}
	}
	if t, ok := named(name); ok {
		return t
	}
	own := text(name)
	// An exception could be taken for the rest of the text that does not count.
	if !strings.Contains(strings.ToLower(name), "exception") {
		if t, ok := known(own); ok {
			return t
		}
	}
	if own == "" {
		own = "The copyright file names this licence and does not tell its text: " + name
	}
	return reference(name, own)
}
