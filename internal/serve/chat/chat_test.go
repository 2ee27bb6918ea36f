package chat

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func server(t *testing.T, status int, text string) *Client {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, text)
	}))
	t.Cleanup(s.Close)
	return &Client{HTTP: s.Client(), URL: s.URL}
}

const stream = `: a comment
data: {"choices":[{"delta":{"role":"assistant","content":null}}]}

event: other
data: {"choices":[{"delta":{"reasoning_content":"Hm."}}]}

data: {"choices":[{"delta":{"content":"Good "}}]}

data: {"choices":[{"delta":{"content":"day"}}]}

data: {"choices":[{"delta":{},"finish_reason":"stop"}]}

data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3}}

`

func TestAsk(t *testing.T) {
	var got []string
	take := func(p Piece) error {
		if p.Thinking {
			p.Text = "(" + p.Text + ")"
		}
		got = append(got, p.Text)
		return nil
	}
	a, err := server(t, 200, stream+"data: [DONE]\n\n").Ask(t.Context(), Request{Model: "m"}, take)
	if err != nil || a.Text != "Good day" || a.Finish != "stop" || a.Prompt != 7 || a.Generated != 3 || a.First == 0 || strings.Join(got, "|") != "(Hm.)|Good |day" {
		t.Errorf("got %+v, %q, %v", a, got, err)
	}
	full := errors.New("full")
	for name, test := range map[string]struct {
		status int
		text   string
		take   func(Piece) error
		want   string
	}{
		"plain error":    {401, `{"error":"it needs a token"}`, take, "it needs a token"},
		"plain text":     {400, "Client sent an HTTP request to an HTTPS server.\n", take, "400 Bad Request Client sent"},
		"refused":        {404, `{"error":{"message":"no model","code":"x"}}`, take, "no model"},
		"not in form":    {502, "<html>", take, "502"},
		"broken off":     {200, stream + `data: {"error":{"message":"the worker died"}}`, take, "broke off: the worker died"},
		"cut":            {200, stream, take, "cut short"},
		"no event":       {200, "data: nonsense\n", take, "no event of a chat"},
		"an endless one": {200, "data: " + strings.Repeat("x", maxEvent+1), take, "too long"},
		"not taken":      {200, stream, func(Piece) error { return full }, "full"},
	} {
		_, err := server(t, test.status, test.text).Ask(t.Context(), Request{}, test.take)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want %s", name, err, test.want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	_, err = server(t, 200, stream).Ask(ctx, Request{}, func(Piece) error { cancel(); return nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("stopped: got %v", err)
	}
}

func FuzzRead(f *testing.F) {
	f.Add(stream + "data: [DONE]\n\n")
	f.Add("data: {\"error\":{}}\n")
	f.Fuzz(func(t *testing.T, text string) {
		var a Answer
		_ = read(strings.NewReader(text), func(e *event) error { return a.add(e, time.Time{}, func(Piece) error { return nil }) })
		if len(a.Text) > len(text) {
			t.Errorf("%d bytes of answer in %d", len(a.Text), len(text))
		}
	})
}
