package hardware

import (
	"encoding/json"
	"fmt"
	"math/bits"
	"strconv"
	"strings"

	"oscine.dev/oscine/internal/printable"
)

// MaxIndex bounds the CPU and NUMA node numbers that a Set holds. The kernel
// stops at 8192 CPUs and 1024 nodes; a larger number in a file is damage.
const MaxIndex = 1 << 16

// Set is a set of CPU or NUMA node numbers. Its zero value is empty. In JSON
// and text it is the kernel's list format, such as "0-3,8".
type Set struct{ words []uint64 }

// NewSet returns the set of the given numbers; numbers outside 0…MaxIndex-1
// are left out.
func NewSet(ids ...int) Set {
	var s Set
	for _, id := range ids {
		s.Add(id)
	}
	return s
}

// Add puts id into the set; a number outside 0…MaxIndex-1 is ignored.
func (s *Set) Add(id int) {
	if id < 0 || id >= MaxIndex {
		return
	}
	word := id / 64
	if word >= len(s.words) {
		s.words = append(s.words, make([]uint64, word+1-len(s.words))...)
	}
	s.words[word] |= 1 << (id % 64)
}

// Has reports whether id is in the set.
func (s Set) Has(id int) bool {
	return id >= 0 && id/64 < len(s.words) && s.words[id/64]&(1<<(id%64)) != 0
}

// Len is the number of members.
func (s Set) Len() int {
	n := 0
	for _, w := range s.words {
		n += bits.OnesCount64(w)
	}
	return n
}

// Empty reports whether the set has no member.
func (s Set) Empty() bool { return s.First() < 0 }

// IsZero is Empty, by the name that encoding/json looks for.
func (s Set) IsZero() bool { return s.Empty() }

// First is the smallest member, or -1 for the empty set.
func (s Set) First() int {
	for i, w := range s.words {
		if w != 0 {
			return i*64 + bits.TrailingZeros64(w)
		}
	}
	return -1
}

// IDs lists the members in rising order.
func (s Set) IDs() []int {
	ids := make([]int, 0, s.Len())
	for i, w := range s.words {
		for ; w != 0; w &= w - 1 {
			ids = append(ids, i*64+bits.TrailingZeros64(w))
		}
	}
	return ids
}

// And is the intersection of s and t.
func (s Set) And(t Set) Set {
	n := min(len(s.words), len(t.words))
	out := make([]uint64, n)
	for i := range out {
		out[i] = s.words[i] & t.words[i]
	}
	return Set{out}
}

// Or is the union of s and t.
func (s Set) Or(t Set) Set {
	out := make([]uint64, max(len(s.words), len(t.words)))
	copy(out, s.words)
	for i, w := range t.words {
		out[i] |= w
	}
	return Set{out}
}

// Minus is s without the members of t.
func (s Set) Minus(t Set) Set {
	out := make([]uint64, len(s.words))
	copy(out, s.words)
	for i := range min(len(out), len(t.words)) {
		out[i] &^= t.words[i]
	}
	return Set{out}
}

// Equal reports whether s and t have the same members.
func (s Set) Equal(t Set) bool {
	return s.In(t) && t.In(s)
}

// In reports whether every member of s is in t.
func (s Set) In(t Set) bool {
	for i, w := range s.words {
		if i < len(t.words) {
			w &^= t.words[i]
		}
		if w != 0 {
			return false
		}
	}
	return true
}

// Meets reports whether s and t share a member.
func (s Set) Meets(t Set) bool {
	for i := range min(len(s.words), len(t.words)) {
		if s.words[i]&t.words[i] != 0 {
			return true
		}
	}
	return false
}

// String is the kernel's list format, "0-3,8"; empty for the empty set.
func (s Set) String() string {
	var b strings.Builder
	ids := s.IDs()
	for i := 0; i < len(ids); {
		j := i
		for j+1 < len(ids) && ids[j+1] == ids[j]+1 {
			j++
		}
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.Itoa(ids[i]))
		if j > i {
			b.WriteByte('-')
			b.WriteString(strconv.Itoa(ids[j]))
		}
		i = j + 1
	}
	return b.String()
}

// MarshalJSON writes the list format as a JSON string.
func (s Set) MarshalJSON() ([]byte, error) { return json.Marshal(s.String()) }

// UnmarshalJSON reads the list format from a JSON string.
func (s *Set) UnmarshalJSON(data []byte) error {
	var text string
	if err := json.Unmarshal(data, &text); err != nil {
		return fmt.Errorf("a set of CPUs or nodes is a string like \"0-3,8\": %w", err)
	}
	parsed, err := ParseList(text)
	if err != nil {
		return err
	}
	*s = parsed
	return nil
}

// ParseList reads the kernel's list format ("0-3,8"), as in cpulist and
// cpuset.cpus. Blanks around the text are skipped, an empty text is the empty
// set, and anything else is an error.
// See Documentation/admin-guide/kernel-parameters.rst, "cpu lists".
func ParseList(text string) (Set, error) {
	var s Set
	text = firstLine(text)
	for text != "" {
		var part string
		part, text, _ = strings.Cut(text, ",")
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		lo, hi, ranged := strings.Cut(part, "-")
		first, err := parseIndex(lo)
		if err != nil {
			return Set{}, err
		}
		last := first
		if ranged {
			if last, err = parseIndex(hi); err != nil {
				return Set{}, err
			}
		}
		if last < first {
			return Set{}, fmt.Errorf("list %q: range runs backwards", part)
		}
		for id := first; id <= last; id++ {
			s.Add(id)
		}
	}
	return s, nil
}

// ParseMask reads the kernel's mask format: groups of up to eight hexadecimal
// digits, the most significant first, joined by commas ("0,000000ff").
func ParseMask(text string) (Set, error) {
	groups := strings.Split(firstLine(text), ",")
	if len(groups) > MaxIndex/32 {
		return Set{}, fmt.Errorf("mask of %d groups is longer than %d CPUs", len(groups), MaxIndex)
	}
	var s Set
	for i, group := range groups {
		group = strings.TrimPrefix(strings.TrimSpace(group), "0x")
		if group == "" && len(groups) == 1 {
			break
		}
		value, err := strconv.ParseUint(group, 16, 32)
		if err != nil {
			return Set{}, fmt.Errorf("mask group %q is not a 32-bit hexadecimal number", clip(group))
		}
		base := (len(groups) - 1 - i) * 32
		for ; value != 0; value &= value - 1 {
			s.Add(base + bits.TrailingZeros64(value))
		}
	}
	return s, nil
}

// firstLine is what counts of an attribute: some drivers print stray bytes
// behind the newline.
func firstLine(text string) string {
	if end := strings.IndexAny(text, "\n\x00"); end >= 0 {
		text = text[:end]
	}
	return strings.TrimSpace(text)
}

func parseIndex(text string) (int, error) {
	id, err := strconv.Atoi(strings.TrimSpace(text))
	if err != nil || id < 0 || id >= MaxIndex {
		return 0, fmt.Errorf("%q is not a number from 0 to %d", clip(text), MaxIndex-1)
	}
	return id, nil
}

// clip shortens foreign text for an error message.
func clip(text string) string {
	if len(text) > 40 {
		return printable.Text(text[:40]) + "…"
	}
	return printable.Text(text)
}
