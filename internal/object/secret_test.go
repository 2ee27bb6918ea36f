package object

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// canary is a value that must be seen nowhere.
const canary = "hunter2canary"

func secretText(spec string) string {
	return "apiVersion: oscine.dev/v1\nkind: Secret\nmetadata: {name: db}\nspec: " + spec + "\n"
}

func parseSecret(t *testing.T, spec string) *Secret {
	t.Helper()
	objects, err := Kinds().Parse(strings.NewReader(secretText(spec)))
	if err != nil {
		t.Fatal(err)
	}
	return objects[0].(*Secret)
}

func TestSecretIsShownWithoutValues(t *testing.T) {
	s := parseSecret(t, "{stringData: {word: "+canary+", pin: 0123}, data: {blob: AAEC}, registry: {server: ghcr.io, username: rita, password: "+canary+"}}")
	raw, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	want := `"spec":{"kept":{"blob":3,"password":13,"pin":4,"word":13},"registry":{"server":"ghcr.io","username":"rita"}}}`
	if !strings.HasSuffix(string(raw), want) {
		t.Errorf("got %s, want it to end in %s", raw, want)
	}
	for _, text := range []string{string(raw), fmt.Sprint(s), fmt.Sprintf("%+v", s), fmt.Sprintf("%#v", s), fmt.Sprintf("%v", *s)} {
		if strings.Contains(text, canary) || strings.Contains(text, fmt.Sprint([]byte(canary))[1:20]) {
			t.Errorf("a value is printed: %s", text)
		}
	}
	if string(s.Values()["password"]) != canary || string(s.Values()["pin"]) != "0123" || string(s.Values()["blob"]) != "\x00\x01\x02" {
		t.Errorf("values %q", s.Values())
	}
	// What was shown, applied again, keeps what is there.
	again, err := Kinds().Parse(strings.NewReader(string(raw)))
	if err != nil {
		t.Fatal(err)
	}
	if missing := again[0].(*Secret).Keep(map[string][]byte{"pin": []byte("0123")}); !slices.Equal(missing, []string{"blob", "password", "word"}) {
		t.Errorf("missing %q", missing)
	}
	if missing := again[0].(*Secret).Keep(s.Values()); len(missing) > 0 || string(again[0].(*Secret).Values()["password"]) != canary {
		t.Errorf("missing %q", missing)
	}
}

// No mistake in a Secret has its message repeat what was written.
func TestMistakesInSecretsAreNotRepeated(t *testing.T) {
	for name, spec := range map[string]string{
		"not base64":           "{data: {a: " + canary + "}}",
		"text for a mapping":   "{stringData: " + canary + "}",
		"text for the spec":    canary,
		"a list":               "{stringData: [" + canary + "]}",
		"a mapping":            "{stringData: {a: {b: " + canary + "}}}",
		"text for a size":      "{kept: {a: " + canary + "}}",
		"an alias":             "{stringData: {a: *" + canary + "}}",
		"a tag":                "{stringData: {a: !!bool " + canary + "}}",
		"a boolean":            "{stringData: {a: true}, data: {b: " + canary + "}}",
		"twice":                "{stringData: {a: " + canary + "}, data: {a: AAAA}}",
		"a colon in the user":  "{registry: {server: ghcr.io, username: 'rita:" + canary + "', password: x}}",
		"a URL for the server": "{registry: {server: 'https://rita:" + canary + "@ghcr.io', username: rita, password: x}}",
		"no password":          "{registry: {server: ghcr.io, username: " + canary + "}}",
		"too long":             "{stringData: {a: " + strings.Repeat(canary, 30_000) + "}}",
		"a broken quote":       "{stringData: {a: \"" + canary + "}}",
		"a bad escape":         `{stringData: {a: "\` + canary + `"}}`,
		"a line for labels":    "{stringData: {a: b}}\nextra: " + canary,
		"nothing":              "{}",
	} {
		_, err := Kinds().Parse(strings.NewReader(secretText(spec)))
		if err == nil {
			t.Errorf("%s: accepted", name)
		} else if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: the value is repeated: %v", name, err)
		}
	}
	// A value in the place of a reference.
	_, err := Kinds().Parse(strings.NewReader("apiVersion: oscine.dev/v1\nkind: Workload\nmetadata: {name: web}\nspec: {image: x, secretEnv: {A: " + canary + "}}"))
	if err == nil || strings.Contains(err.Error(), canary) || !strings.Contains(err.Error(), "must be SECRET/ENTRY") {
		t.Errorf("got %v", err)
	}
}

func TestSecretBounds(t *testing.T) {
	var many []string
	for i := range maxEntries + 1 {
		many = append(many, fmt.Sprintf("e%d: x", i))
	}
	for want, spec := range map[string]string{
		"at most 64 are accepted":     "{stringData: {" + strings.Join(many, ", ") + "}}",
		"at most 262144 are accepted": "{stringData: {a: " + strings.Repeat("x", maxSecretBytes+1) + "}}",
		"the name of an entry must":   "{stringData: {'../a': x}}",
		"at least one entry":          "{stringData: {}}",
		"password: is required":       "{registry: {server: ghcr.io, username: rita}}",
	} {
		if _, err := Kinds().Parse(strings.NewReader(secretText(spec))); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %.300v", want, err)
		}
	}
	_, err := Kinds().Parse(strings.NewReader("apiVersion: oscine.dev/v1\nkind: Workload\nmetadata: {name: web}\nspec: {image: x, env: {A: b}, secretEnv: {A: db/a}, volumes: [{name: v, path: /v}], secrets: [{name: db, path: /v}, {name: Db, path: rel}]}"))
	for _, want := range []string{"spec.secretEnv.A: is in spec.env too", `"/v" is mounted twice`, "spec.secrets[1].name", "spec.secrets[1].path: must be an absolute"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q in %v", want, err)
		}
	}
}

func FuzzParseSecretRef(f *testing.F) {
	f.Add("db/password")
	f.Fuzz(func(t *testing.T, text string) {
		ref, err := ParseSecretRef(text)
		if err == nil && ref.Secret+"/"+ref.Entry != text {
			t.Errorf("%q became %+v", text, ref)
		}
	})
}
