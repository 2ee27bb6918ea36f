package clib

import (
	"strings"
	"testing"
)

func libc(t *testing.T) *Library {
	t.Helper()
	l, err := Load("libc.so.6")
	if err != nil {
		t.Skip(err)
	}
	return l
}

// The library reads the C library's environment, not Go's.
func TestSetenv(t *testing.T) {
	t.Setenv("OSCINE_CLIB_TEST", "") // put back afterwards
	if err := Setenv(map[string]string{"OSCINE_CLIB_TEST": "seen"}); err != nil {
		t.Fatal(err)
	}
	getenv, err := libc(t).Func("getenv")
	if err != nil {
		t.Fatal(err)
	}
	if got := Text(getenv.Call(String("OSCINE_CLIB_TEST"))); got != "seen" {
		t.Errorf("the library sees %q, want seen", got)
	}
	if got := Text(0); got != "" {
		t.Errorf("the null pointer is %q", got)
	}
}

func TestCalls(t *testing.T) {
	l := libc(t)
	var memcpy, strlen Func
	if err := l.Bind(map[string]*Func{"memcpy": &memcpy, "strlen": &strlen}); err != nil {
		t.Fatal(err)
	}
	if got := strlen.Call(String("žluť")); got != 6 {
		t.Errorf("strlen: got %d, want 6", got)
	}
	a, b := NewWords(2), NewWords(2)
	a[1] = 7
	memcpy.Call(b.At(0), a.At(1), 8)
	if b[0] != 7 || string(Bytes(b.Address(), 1)) != "\a" {
		t.Errorf("memcpy: got %v, want 7", b[:2])
	}
	if _, err := l.Func("oscine_no_such_function"); err == nil || !strings.Contains(err.Error(), "is not the library that is expected") {
		t.Errorf("an absent function: got %v", err)
	}
	if _, err := Load("/dev/null"); err == nil {
		t.Error("/dev/null was loaded as a library")
	}
}
