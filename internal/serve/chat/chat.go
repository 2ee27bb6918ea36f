package chat

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// Client reaches one server.
type Client struct {
	HTTP *http.Client
	URL  string // of the server, without a path
	// Token is sent as Authorization: Bearer; empty for none.
	Token string
}

// Message is one turn of a conversation.
type Message struct {
	Role    string `json:"role"` // system, user or assistant
	Content string `json:"content"`
}

// Request asks for the next turn of a conversation.
type Request struct {
	Model       string    `json:"model"`
	Messages    []Message `json:"messages"`
	MaxTokens   int       `json:"max_tokens,omitempty"` // 0: as many as the context holds
	Temperature *float64  `json:"temperature,omitempty"`
	Seed        *int64    `json:"seed,omitempty"`
}

// Piece is some of an answer.
type Piece struct {
	Text     string
	Thinking bool // it is not part of the answer but comes before it
}

// Answer is what came.
type Answer struct {
	Text      string
	Finish    string // why it ended: stop or length
	Prompt    int    // tokens
	Generated int    // tokens
	First     time.Duration
	Took      time.Duration
}

// Error is a server's error: it refused the request, or broke off its answer.
type Error struct {
	Status  int // of HTTP; 200 for an answer that broke off
	Message string
}

// Error returns the server's reason.
func (e *Error) Error() string { return e.Message }

// HTTPStatus returns the status of the refusal.
func (e *Error) HTTPStatus() int { return e.Status }

// Bounds of what is read.
const (
	maxError = 64 << 10
	maxEvent = 1 << 20
	maxText  = 64 << 20
)

// Ask sends the conversation and gives each piece of the answer to take as it
// comes. It returns what came even with an error: of the server an *Error, of
// take its own, or of ctx.
func (c *Client) Ask(ctx context.Context, r Request, take func(Piece) error) (Answer, error) {
	body, err := json.Marshal(struct {
		Request
		Stream  bool            `json:"stream"`
		Options map[string]bool `json:"stream_options"`
	}{r, true, map[string]bool{"include_usage": true}})
	if err != nil {
		return Answer{}, err
	}
	q, err := http.NewRequestWithContext(ctx, http.MethodPost, c.URL+"/v1/chat/completions", bytes.NewReader(body))
	if err != nil {
		return Answer{}, err
	}
	q.Header.Set("Content-Type", "application/json")
	if c.Token != "" {
		q.Header.Set("Authorization", "Bearer "+c.Token)
	}
	begin := time.Now()
	resp, err := c.HTTP.Do(q)
	if err != nil {
		return Answer{}, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return Answer{}, refusal(resp)
	}
	var a Answer
	err = read(resp.Body, func(e *event) error { return a.add(e, begin, take) })
	a.Took = time.Since(begin)
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return a, err
}

func refusal(resp *http.Response) error {
	text, _ := io.ReadAll(io.LimitReader(resp.Body, maxError)) // what came of it tells more than nothing
	var said event
	if json.Unmarshal(text, &said) == nil && said.Error != nil && said.Error.Message != "" {
		return &Error{resp.StatusCode, said.Error.Message}
	}
	var plain struct {
		Error string `json:"error"` // as servers of other protocols answer
	}
	if json.Unmarshal(text, &plain) == nil && plain.Error != "" {
		return &Error{resp.StatusCode, plain.Error}
	}
	return &Error{resp.StatusCode, strings.TrimSpace(fmt.Sprintf("the server answered %s %.200s", resp.Status, text))}
}

var errTooLong = errors.New("the answer is longer than is read here")

// add takes one event into the answer.
func (a *Answer) add(e *event, begin time.Time, take func(Piece) error) error {
	if e.Error != nil {
		return &Error{http.StatusOK, "the answer broke off: " + e.Error.Message}
	}
	if e.Usage != nil {
		a.Prompt, a.Generated = e.Usage.Prompt, e.Usage.Completion
	}
	for i := range e.Choices {
		choice := &e.Choices[i]
		if choice.Finish != "" {
			a.Finish = choice.Finish
		}
		for _, p := range []Piece{{choice.Delta.Reasoning, true}, {choice.Delta.Content, false}} {
			if p.Text == "" {
				continue
			}
			if a.First == 0 {
				a.First = time.Since(begin)
			}
			if !p.Thinking {
				if a.Text += p.Text; len(a.Text) > maxText {
					return errTooLong
				}
			}
			if err := take(p); err != nil {
				return err
			}
		}
	}
	return nil
}
