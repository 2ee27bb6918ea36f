package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"oscine.dev/oscine/internal/serve/chat"
)

// converse answers line by line until /bye or the end of the input. An interrupt
// stops the answer that comes; without one it ends the conversation.
func (t *conversation) converse(ctx context.Context) error {
	// The command's own context ends with the first interrupt.
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	if isTerminal(t.env.In) {
		fmt.Fprintln(t.env.Err, "Write a message; Ctrl-C stops an answer, /bye ends.")
	}
	lines, failed := t.lines()
	for {
		if isTerminal(t.env.In) {
			fmt.Fprint(t.env.Err, ">>> ")
		}
		var line string
		select {
		case err := <-failed:
			return err
		case <-signals:
			fmt.Fprintln(t.env.Err)
			return context.Canceled
		case line = <-lines:
		}
		switch line = strings.TrimSpace(line); line {
		case "":
			continue
		case "/bye", "/exit":
			return nil
		}
		if err := t.turn(context.WithoutCancel(ctx), line, signals); err != nil {
			return err
		}
	}
}

// turn answers one message, unless a signal stops it. What the server refuses
// is told, and the conversation goes on.
func (t *conversation) turn(ctx context.Context, line string, signals <-chan os.Signal) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	done := make(chan error, 1)
	go func() { done <- t.answer(ctx, line) }()
	var ended os.Signal
	var err error
	select {
	case err = <-done:
	case ended = <-signals:
		stop()
		err = <-done
	}
	var refused *chat.Error
	switch {
	case ended == syscall.SIGTERM:
		return context.Canceled
	case ended != nil:
		fmt.Fprintln(t.env.Err, "(stopped)")
		return nil
	case errors.As(err, &refused) && refused.Status != 404:
		fmt.Fprintf(t.env.Err, "oscine: %s\n", forTerminal(t.env.Err, refused.Message))
		return nil
	}
	return err
}

// lines reads the input; failed gets its end, nil for a good one.
func (t *conversation) lines() (<-chan string, <-chan error) {
	lines, failed := make(chan string), make(chan error, 1)
	go func() {
		scan := bufio.NewScanner(t.env.In)
		scan.Buffer(nil, maxMessage)
		for scan.Scan() {
			lines <- scan.Text()
		}
		failed <- scan.Err()
	}()
	return lines, failed
}
