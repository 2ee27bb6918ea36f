package access

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"

	"oscine.dev/oscine/internal/serve/core"
	"oscine.dev/oscine/internal/serve/front"
)

func openTokens(t *testing.T) (*Tokens, string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "tokens.json")
	tokens, err := OpenTokens(file)
	if err != nil {
		t.Fatal(err)
	}
	return tokens, file
}

func create(t *testing.T, tokens *Tokens, token Token) string {
	t.Helper()
	secret, _, err := tokens.Create(token)
	if err != nil {
		t.Fatal(err)
	}
	return secret
}

// The node can tell a token, and nobody can read it from its disk.
func TestTokensAreKeptAsDigests(t *testing.T) {
	tokens, file := openTokens(t)
	secret := create(t, tokens, Token{Name: "web", Models: []string{"digits*"}})
	raw, err := os.ReadFile(file)
	if err != nil || strings.Contains(string(raw), secret) || strings.Contains(string(raw), strings.TrimPrefix(secret, tokenPrefix)) {
		t.Errorf("%v, the file holds %s", err, raw)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	again, err := OpenTokens(file)
	if err != nil {
		t.Fatal(err)
	}
	c, err := again.find(secret)
	if err != nil || c.token.Name != "web" || !slices.Equal(c.token.Models, []string{"digits*"}) {
		t.Errorf("after a restart: %+v, %v", c, err)
	}
	for _, wrong := range []string{"", secret + "x", secret[:len(secret)-1], "web"} {
		if _, err := again.find(wrong); !errdefs.IsUnauthorized(err) {
			t.Errorf("%q: got %v", wrong, err)
		}
	}
	if err := again.Remove([]string{"web", "none"}); !errdefs.IsNotFound(err) {
		t.Errorf("an unknown one: got %v", err)
	}
	if _, err := again.find(secret); err != nil {
		t.Errorf("nothing was to be removed: %v", err)
	}
	if err := again.Remove([]string{"web"}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Admit(t.Context(), "digits"); !errdefs.IsUnauthorized(err) {
		t.Errorf("a stream of a removed token goes on: %v", err)
	}
	if err := os.WriteFile(file, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenTokens(file); err == nil {
		t.Error("a broken file lets all tokens be forgotten")
	}
}

func TestTokensAreChecked(t *testing.T) {
	tokens, _ := openTokens(t)
	for name, token := range map[string]Token{
		"no name": {}, "a name": {Name: "a b"}, "a pattern": {Name: "a", Models: []string{"["}}, "an empty pattern": {Name: "a", Models: []string{""}},
		"a rate": {Name: "a", Rate: -1}, "a burst": {Name: "a", Burst: 5}, "concurrent": {Name: "a", Concurrent: -1}, "expired": {Name: "a", Expires: time.Now()},
	} {
		if _, _, err := tokens.Create(token); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	create(t, tokens, Token{Name: "a"})
	if _, _, err := tokens.Create(Token{Name: "a"}); !errdefs.IsAlreadyExists(err) {
		t.Errorf("twice: got %v", err)
	}
}

func TestTokensAreBounded(t *testing.T) { synctest.Test(t, tokensAreBounded) }

func tokensAreBounded(t *testing.T) {
	tokens, _ := openTokens(t)
	secret := create(t, tokens, Token{Name: "a", Models: []string{"m?"}, Rate: 2, Burst: 3, Concurrent: 2, Expires: time.Now().Add(time.Hour)})
	c, err := tokens.find(secret)
	if err != nil {
		t.Fatal(err)
	}
	admit := func(want func(error) bool) (done func()) {
		t.Helper()
		done, err := c.Admit(t.Context(), "m1")
		if want == nil && err != nil || want != nil && !want(err) {
			t.Errorf("got %v", err)
		}
		return done
	}
	if _, err := c.Admit(t.Context(), "other"); !errdefs.IsPermissionDenied(err) {
		t.Errorf("another model: got %v", err)
	}
	first, second := admit(nil), admit(nil)
	admit(errdefs.IsResourceExhausted) // two are at work
	first()
	second()
	admit(nil)()
	_, err = c.Admit(t.Context(), "m1") // three have come at once
	if !strings.Contains(err.Error(), "its limit of 2 requests per second") {
		t.Errorf("got %v", err)
	}
	if after := front.RetryAfter(err); !errdefs.IsResourceExhausted(err) || after != 500*time.Millisecond {
		t.Errorf("got %v, after %v", err, after)
	}
	time.Sleep(500 * time.Millisecond)
	admit(nil)()
	admit(errdefs.IsResourceExhausted)
	if _, used := tokens.All(); used[0].Requests != 4 || used[0].Refused != 4 {
		t.Errorf("usage %+v", used[0])
	}
	time.Sleep(time.Hour)
	admit(errdefs.IsUnauthorized)
	if _, err := tokens.find(secret); !errdefs.IsUnauthorized(err) {
		t.Errorf("an expired token: got %v", err)
	}
}

func TestGuard(t *testing.T) {
	tokens, _ := openTokens(t)
	secret := create(t, tokens, Token{Name: "web"})
	for _, test := range []struct {
		required bool
		header   string
		grpc     bool
		status   int
		guarded  bool
	}{
		{true, "Bearer " + secret, false, 200, true},
		{true, "bearer " + secret, true, 200, true},
		{true, "", false, 401, false},
		{true, "Basic " + secret, false, 401, false},
		{true, "Bearer wrong", false, 401, false},
		{true, "Bearer", false, 401, false},
		{true, "Bearer wrong", true, 16, false},
		{false, "", false, 200, false},
		{false, "Bearer " + secret, false, 200, true},
		{false, "Bearer wrong", false, 401, false},
	} {
		var passed, guarded bool
		h := tokens.Guard(test.required, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			passed, guarded = true, core.GuardOf(r.Context()) != nil
		}))
		r := httptest.NewRequest("POST", "/v2/models/m/infer", nil)
		if test.header != "" {
			r.Header.Set("Authorization", test.header)
		}
		if test.grpc {
			r.ProtoMajor = 2
			r.Header.Set("Content-Type", "application/grpc")
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		status := w.Code
		if w.Header().Get("Grpc-Status") == "16" {
			status = 16
		}
		if status != test.status || passed != (test.status == 200) || guarded != test.guarded {
			t.Errorf("%+v: got %d %s, passed %v, guarded %v", test, status, w.Body, passed, guarded)
		}
		if status == 401 && (w.Header().Get("WWW-Authenticate") == "" || !strings.Contains(w.Body.String(), `{"error":`)) {
			t.Errorf("%+v: %v %s", test, w.Header(), w.Body)
		}
	}
}

// A refusal has the form of errors that the clients of the path read.
func TestRefusalsHaveTheirForm(t *testing.T) {
	tokens, _ := openTokens(t)
	h := tokens.Guard(true, http.NotFoundHandler())
	for path, want := range map[string]string{
		"/v1/chat/completions":      `"type":"authentication_error"`,
		"/v1/models":                `"code":"invalid_api_key"`,
		"/v1/nope":                  `"code":"invalid_api_key"`,
		"/v1/models/digits:predict": `{"error":"`,
		"/v2/models/digits/infer":   `{"error":"`,
		"/nope":                     `{"error":"`,
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("POST", path, nil))
		if path == "/v1/models" {
			w = httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		}
		if w.Code != 401 || w.Header().Get("WWW-Authenticate") == "" || !strings.Contains(w.Body.String(), want) {
			t.Errorf("%s: got %d %v %s, want %s", path, w.Code, w.Header(), w.Body, want)
		}
	}
}

// A client that floods a model leaves the others their part of it.
func TestTurnsAreFair(t *testing.T) { synctest.Test(t, turnsAreFair) }

func turnsAreFair(t *testing.T) {
	f := NewFair()
	turns := make(chan string, 1000)
	ask := func(client string) {
		if err := f.take(t.Context(), "m", client); err != nil {
			turns <- "refused " + client
			return
		}
		turns <- client
	}
	for range atWork {
		ask("flood")
	}
	for range inLine {
		go ask("flood")
	}
	synctest.Wait()
	for range atWork {
		<-turns
	}
	go ask("a")
	go ask("b")
	synctest.Wait()
	ask("flood")
	if got := <-turns; got != "refused flood" {
		t.Errorf("a full line: got %s", got)
	}
	// The next two places are for those that have none.
	f.give("m", "flood")
	f.give("m", "flood")
	synctest.Wait()
	got := []string{<-turns, <-turns}
	slices.Sort(got)
	if !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("the next turns are %v", got)
	}
	// Those who leave are forgotten, and those who wait too long.
	ctx, leave := context.WithCancel(t.Context())
	gone := make(chan error)
	go func() { gone <- f.take(ctx, "m", "c") }()
	synctest.Wait()
	leave()
	if err := <-gone; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	time.Sleep(patience)
	synctest.Wait()
	for range inLine {
		if got := <-turns; got != "refused flood" {
			t.Fatalf("got %s", got)
		}
	}
	for range atWork - 2 {
		f.give("m", "flood")
	}
	f.give("m", "a")
	f.give("m", "b")
	if len(f.lines) != 0 {
		t.Errorf("all have left, and %+v is known", f.lines["m"])
	}
}
