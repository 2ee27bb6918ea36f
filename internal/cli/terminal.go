package cli

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"golang.org/x/term"

	"oscine.dev/oscine/internal/printable"
)

// terminalOf is a stream as the file of a terminal, false where it is none.
func terminalOf(stream any) (*os.File, bool) {
	f, ok := stream.(*os.File)
	return f, ok && term.IsTerminal(int(f.Fd()))
}

func isTerminal(stream any) bool {
	_, ok := terminalOf(stream)
	return ok
}

// askLine asks a person, and returns the line that is typed without space around it.
func askLine(env *Env, question string) (string, error) {
	fmt.Fprint(env.Err, question)
	answer, err := bufio.NewReader(env.In).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	return strings.TrimSpace(answer), nil
}

// askSecret asks a person on a terminal, which does not show what is typed.
func askSecret(env *Env, terminal *os.File, question string) ([]byte, error) {
	fmt.Fprint(env.Err, question)
	text, err := term.ReadPassword(int(terminal.Fd()))
	fmt.Fprintln(env.Err)
	return text, err
}

// forTerminal is text as it is, for a pipe or a file, and without what would
// steer a terminal for one.
func forTerminal(w io.Writer, text string) string {
	if isTerminal(w) {
		return printable.Lines(text)
	}
	return text
}

// plainWriter passes a program's output on to a terminal without what would
// steer it. A character that is cut in two waits for its rest.
type plainWriter struct {
	w    io.Writer
	rest []byte
}

// Write writes what is printable, and the rest as escapes.
func (p *plainWriter) Write(b []byte) (int, error) {
	p.rest = append(p.rest, b...)
	whole := len(p.rest)
	for back := 1; back < utf8.UTFMax && back <= len(p.rest); back++ {
		if at := len(p.rest) - back; utf8.RuneStart(p.rest[at]) {
			if !utf8.FullRune(p.rest[at:]) {
				whole = at
			}
			break
		}
	}
	_, err := io.WriteString(p.w, printable.Lines(string(p.rest[:whole])))
	p.rest = append(p.rest[:0], p.rest[whole:]...)
	return len(b), err
}

// Close writes what waits.
func (p *plainWriter) Close() error {
	_, err := io.WriteString(p.w, printable.Lines(string(p.rest)))
	p.rest = nil
	return err
}
