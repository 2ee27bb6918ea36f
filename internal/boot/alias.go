package boot

import "strings"

// match reports whether s fits the shell pattern of a module alias: *, ? and
// [a-z]. Unlike path.Match a star takes every byte. - and _ are the same in the
// names of modules, not here.
func match(pattern, s string) bool {
	star, mark := -1, 0
	p, i := 0, 0
	for i < len(s) {
		if p < len(pattern) && pattern[p] == '*' {
			star, mark = p, i
			p++
			continue
		}
		if n, ok := matchOne(pattern[min(p, len(pattern)):], s[i]); ok {
			p += n
			i++
			continue
		}
		if star < 0 {
			return false
		}
		mark++
		p, i = star+1, mark
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}

// matchOne matches c with the first element of pattern and returns that
// element's length.
func matchOne(pattern string, c byte) (int, bool) {
	switch {
	case pattern == "":
		return 0, false
	case pattern[0] == '?':
		return 1, true
	case pattern[0] != '[':
		return 1, pattern[0] == c
	}
	end := strings.IndexByte(pattern, ']')
	if end < 0 {
		return 1, c == '['
	}
	set := pattern[1:end]
	for i := 0; i < len(set); i++ {
		low, high := set[i], set[i]
		if i+2 < len(set) && set[i+1] == '-' {
			high = set[i+2]
			i += 2
		}
		if low <= c && c <= high {
			return end + 1, true
		}
	}
	return end + 1, false
}
