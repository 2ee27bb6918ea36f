package release

import (
	"cmp"
	"strings"

	"oscine.dev/oscine/internal/pattern"
)

// versionRule keeps versions usable in the boot loader's file names: no "+",
// which begins the boot counter, no "_", which begins the version.
var versionRule = pattern.New(`^[0-9A-Za-z][0-9A-Za-z.~^-]{0,63}$`)

// ValidVersion reports whether a release may have this version: 1 to 64
// letters, digits, points, tildes, carets and hyphens, the first a letter or a
// digit.
func ValidVersion(v string) bool { return versionRule.MatchString(v) }

// CompareVersions orders two versions as the boot loader does: negative when a
// is older than b. 1.0~rc1 is older than 1.0, which is older than 1.0-1
// (UAPI Group Specification: Version Format).
func CompareVersions(a, b string) int {
	for {
		a, b = strings.TrimLeftFunc(a, ignored), strings.TrimLeftFunc(b, ignored)
		if c, decided := compareMark(&a, &b, '~'); decided {
			return c
		}
		if a == "" || b == "" {
			return cmp.Compare(len(a), len(b))
		}
		for _, mark := range []byte{'-', '^', '.'} {
			if c, decided := compareMark(&a, &b, mark); decided {
				return c
			}
		}
		var c int
		if a != "" && isDigit(rune(a[0])) || b != "" && isDigit(rune(b[0])) {
			x, y := takeRun(&a, isDigit), takeRun(&b, isDigit)
			if c := cmp.Compare(min(len(x), 1), min(len(y), 1)); c != 0 {
				return c
			}
			x, y = strings.TrimLeft(x, "0"), strings.TrimLeft(y, "0")
			c = cmp.Or(cmp.Compare(len(x), len(y)), cmp.Compare(x, y))
		} else {
			c = cmp.Compare(takeRun(&a, isLetter), takeRun(&b, isLetter))
		}
		if c != 0 {
			return c
		}
	}
}

// compareMark decides when just one of the two begins with mark: that one is
// the older. Where both do, the mark is taken off.
func compareMark(a, b *string, mark byte) (c int, decided bool) {
	inA, inB := *a != "" && (*a)[0] == mark, *b != "" && (*b)[0] == mark
	switch {
	case inA && inB:
		*a, *b = (*a)[1:], (*b)[1:]
	case inA:
		return -1, true
	case inB:
		return 1, true
	}
	return 0, false
}

func takeRun(s *string, in func(rune) bool) string {
	rest := strings.TrimLeftFunc(*s, in)
	run := (*s)[:len(*s)-len(rest)]
	*s = rest
	return run
}

func isDigit(c rune) bool  { return c >= '0' && c <= '9' }
func isLetter(c rune) bool { return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' }
func ignored(c rune) bool  { return !isDigit(c) && !isLetter(c) && !strings.ContainsRune("-.~^", c) }

// Flavour is the kernel flavour of a kernel's version, as uname -r prints it:
// cloud, rt or metal.
func Flavour(kernel string) string {
	for _, flavour := range []string{"cloud", "rt"} {
		if strings.Contains(kernel, "-"+flavour+"-") {
			return flavour
		}
	}
	return "metal"
}
