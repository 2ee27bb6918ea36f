package printable

import (
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestText(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"", ""},
		{"NVIDIA A100 80GB", "NVIDIA A100 80GB"},
		{"Kältekammer · 冷", "Kältekammer · 冷"},
		{"X\x1b[31mRED\x1b[0m\a", `X\x1b[31mRED\x1b[0m\a`},
		{"Sup\xedr\x7f Micro", `Sup\xedr\x7f Micro`},
		{"a\tb\nc", "a b c"},
		{"a\u202ebidi", `a\u202ebidi`},
		{"\x00", `\x00`},
		{"\ufffd", "\ufffd"},
	} {
		if got := Text(c.in); got != c.want {
			t.Errorf("Text(%q): got %q, want %q", c.in, got, c.want)
		}
	}
	if got, want := Lines("a\tb\n\x1bc"), "a\tb\n\\x1bc"; got != want {
		t.Errorf("Lines: got %q, want %q", got, want)
	}
}

func FuzzText(f *testing.F) {
	f.Add("a\x1b[0m\xff\u202e")
	f.Fuzz(func(t *testing.T, s string) {
		got := Text(s)
		if !utf8.ValidString(got) {
			t.Errorf("Text(%q) is not UTF-8", s)
		}
		for _, r := range got {
			if r != ' ' && !unicode.IsPrint(r) {
				t.Errorf("Text(%q) holds %q", s, r)
			}
		}
		if again := Text(got); again != got {
			t.Errorf("Text(%q) changes its own result to %q", s, again)
		}
	})
}
