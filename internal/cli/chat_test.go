package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"oscine.dev/oscine/internal/object"
)

// talker answers each chat with the number of messages that it got, word by
// word; a message that says "long" gets words until its client leaves.
func talker(t *testing.T) (url string, left <-chan bool) {
	gone := make(chan bool, 1)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var q struct {
			Model    string
			Messages []struct{ Role, Content string }
		}
		if err := json.NewDecoder(r.Body).Decode(&q); err != nil || r.URL.Path != "/v1/chat/completions" {
			t.Errorf("%s: %v", r.URL, err)
		}
		last := q.Messages[len(q.Messages)-1].Content
		if q.Model != "m" || last == "refuse" {
			w.WriteHeader(map[bool]int{true: 400, false: 404}[q.Model == "m"])
			fmt.Fprint(w, `{"error":{"message":"I \u001b[2Jrefuse"}}`)
			return
		}
		say := func(text string) {
			fmt.Fprintf(w, "data: {\"choices\":[{\"delta\":{\"content\":%q}}]}\n\n", text)
			_ = http.NewResponseController(w).Flush()
		}
		say(fmt.Sprintf("%s after %d:", last, len(q.Messages)-1))
		for last == "long" {
			say(" word")
			select {
			case <-r.Context().Done():
				gone <- true
				return
			case <-time.After(time.Millisecond):
			}
		}
		say(" done")
		fmt.Fprint(w, "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"length\"}],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":4}}\n\ndata: [DONE]\n\n")
	}))
	t.Cleanup(s.Close)
	return s.URL, gone
}

func TestChat(t *testing.T) {
	url, _ := talker(t)
	for name, test := range map[string]struct {
		args   []string
		in     string
		status int
		out    string
		err    string
	}{
		"words":        {[]string{"m", "Good", "day"}, "", 0, "Good day after 0: done\n", "the answer is cut"},
		"pipe":         {[]string{"m"}, "two\nlines\n", 0, "two\nlines after 0: done\n", ""},
		"system":       {[]string{"m", "--system", "Be kind.", "Hi"}, "", 0, "Hi after 1: done\n", ""},
		"turns":        {[]string{"m", "-i", "-v"}, "one\n\ntwo\n/bye\nthree\n", 0, "one after 0: done\ntwo after 2: done\n", "3 tokens read, 4 written"},
		"refused turn": {[]string{"m", "-i"}, "one\nrefuse\ntwo\n", 0, "one after 0: done\ntwo after 2: done\n", "refuse"},
		"refused":      {[]string{"m", "refuse"}, "", 2, "", `I \x1b[2Jrefuse`},
		"no such":      {[]string{"none", "Hi"}, "", 3, "", "oscine get models"},
		"nothing":      {[]string{"m"}, " \n", 2, "", "there is no message"},
		"no model":     {nil, "", 2, "", "needs a model"},
		"a file there": {[]string{"./m.gguf", "Hi"}, "", 2, "", "leave --url out"},
	} {
		var out, errOut strings.Builder
		env := &Env{In: strings.NewReader(test.in), Out: &out, Err: &errOut, Kinds: object.Kinds()}
		status := env.Run(t.Context(), append([]string{"--config", filepath.Join(t.TempDir(), "c"), "chat", "--url", url}, test.args...))
		if status != test.status || out.String() != test.out || !strings.Contains(errOut.String(), test.err) {
			t.Errorf("%s: exit status %d, %q, %q, want %d, %q, %q", name, status, out.String(), errOut.String(), test.status, test.out, test.err)
		}
	}
}

// An interrupt stops the answer that comes, at the server too, and the
// conversation goes on; the next one, between answers, ends it.
func TestChatInterrupted(t *testing.T) {
	url, left := talker(t)
	in, typed, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	defer typed.Close()
	heard, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer heard.Close()
	var errOut strings.Builder
	ended := make(chan int, 1)
	go func() {
		env := &Env{In: in, Out: out, Err: &errOut, Kinds: object.Kinds()}
		ended <- env.Run(context.WithoutCancel(t.Context()), []string{"--config", filepath.Join(t.TempDir(), "c"), "chat", "--url", url, "-i", "m"})
		out.Close()
	}()
	until := func(want string) {
		t.Helper()
		var got []byte
		for one := make([]byte, 1); !strings.Contains(string(got), want); {
			if _, err := heard.Read(one); err != nil {
				t.Fatalf("heard %q, want %s: %v", got, want, err)
			}
			got = append(got, one...)
		}
	}
	fmt.Fprintln(typed, "long")
	until("word word")
	interrupt := func() {
		if err := syscall.Kill(os.Getpid(), syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
	}
	interrupt()
	select {
	case <-left:
	case <-time.After(20 * time.Second):
		t.Fatal("the server goes on")
	}
	fmt.Fprintln(typed, "short")
	until("short after 2: done\n") // what came of the long answer is remembered
	interrupt()
	if status := <-ended; status == 0 || !strings.Contains(errOut.String(), "(stopped)") {
		t.Errorf("exit status %d, %s", status, errOut.String())
	}
}
