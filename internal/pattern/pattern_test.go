package pattern

import "testing"

func TestPattern(t *testing.T) {
	p := New(`^([a-z]+)-[0-9]{1,3}$`)
	if !p.MatchString("slot-12") || p.MatchString("slot-1234") {
		t.Error("it matches otherwise than package regexp")
	}
	if m := p.Regexp().FindStringSubmatch("slot-12"); len(m) != 2 || m[1] != "slot" {
		t.Errorf("got %q", m)
	}
	if p.String() != `^([a-z]+)-[0-9]{1,3}$` {
		t.Errorf("got %s", p)
	}
}

// A broken pattern costs nothing before it is used, and is told then.
func TestBrokenPattern(t *testing.T) {
	p := New("(")
	defer func() {
		if recover() == nil {
			t.Error("a broken pattern matches")
		}
	}()
	p.MatchString("x")
}
