package client

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestDefaultPath(t *testing.T) {
	for _, tc := range []struct {
		env  map[string]string
		want string
	}{
		{map[string]string{"OSCINE_CONFIG": "/x", "HOME": "/home/a"}, "/x"},
		{map[string]string{"XDG_CONFIG_HOME": "/c", "HOME": "/home/a"}, "/c/oscine/config"},
		{map[string]string{"XDG_CONFIG_HOME": "relative", "HOME": "/home/a"}, "/home/a/.config/oscine/config"},
		{nil, ""},
	} {
		got, err := DefaultPath(func(name string) string { return tc.env[name] })
		if got != tc.want || (err != nil) != (tc.want == "") {
			t.Errorf("%v: got %q, %v, want %q", tc.env, got, err, tc.want)
		}
	}
}

func TestConfigComesBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "deep", "config")
	empty, err := Load(path)
	if err != nil || len(empty.Contexts) != 0 {
		t.Fatalf("a missing file: got %v, %v, want an empty one", empty, err)
	}
	if _, _, err := empty.Context(""); !errors.Is(err, ErrNoContext) {
		t.Errorf("no context: got %v, want ErrNoContext", err)
	}
	empty.Set("a", &Context{Address: "192.0.2.1:7443", ServerName: "a"})
	empty.Set("b", &Context{Address: "192.0.2.2:7443", ServerName: "b", Key: "secret"})
	if err := empty.Save(path); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file with the keys has mode %v, %v, want 0600", info.Mode(), err)
	}
	loaded, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(empty, loaded); diff != "" {
		t.Errorf("(-saved +loaded):\n%s", diff)
	}
	if name, _, err := loaded.Context(""); name != "b" || err != nil {
		t.Errorf("the current context: got %q, %v, want b", name, err)
	}
}

func TestLoadRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"contexts: [":                           "repair it, or make a new one",
		"contexts: {a: {adress: x}}":            "adress",
		"contexts: {a: null}":                   `context "a" has no address`,
		strings.Repeat("#\n", maxBytes/2) + "#": "larger than",
	} {
		path := filepath.Join(t.TempDir(), "config")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: got %v, want an error with %q", text, err, want)
		}
	}
}
