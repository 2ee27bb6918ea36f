package systemtest

import (
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"oscine.dev/oscine/internal/cli"
)

// openTerminal opens a terminal, a person's side of it and a program's, and notes
// what it shows.
func openTerminal(t testing.TB) (person, program *os.File, seen *lockedBuffer) {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { person.Close() })
	if err := unix.IoctlSetPointerInt(int(person.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(int(person.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	program, err = os.OpenFile(fmt.Sprint("/dev/pts/", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { program.Close() })
	setSize(t, person, 90, 30)
	seen = &lockedBuffer{}
	go func() { _, _ = io.Copy(seen, person) }() // until the terminal is closed
	return person, program, seen
}

func setSize(t testing.TB, terminal *os.File, columns, rows uint16) {
	t.Helper()
	if err := unix.IoctlSetWinsize(int(terminal.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: columns, Row: rows}); err != nil {
		t.Fatal(err)
	}
}

// testInteractive is oscine run with a person at it.
func testInteractive(n *testNode) {
	t := n.t
	out, errOut, code := n.tryWith(n.config, "whisper\n", "run", "-i", webImage, "--", "cat")
	if out != "WHISPER\n" || code != 0 {
		t.Errorf("run -i cat: got %q, %q, %d", out, errOut, code)
	}
	if _, _, code := n.tryWith(n.config, "", "run", "-i", webImage, "--", "exit", "7"); code != 7 {
		t.Errorf("run -i exit 7: got exit status %d", code)
	}
	n.refuse([]string{"run", "-it", webImage}, "needs a terminal")
	n.refuse([]string{"run", "-d", "-i", webImage}, "choose one")

	person, program, seen := openTerminal(t)
	ended := make(chan int, 1)
	go func() {
		ended <- cli.Run([]string{"--config", n.config, "run", "-it", webImage, "--", "terminal"}, program, program, program)
	}()
	n.awaitWritten("size 90 30 true", seen)
	setSize(t, person, 100, 40)
	if err := syscall.Kill(os.Getpid(), syscall.SIGWINCH); err != nil { // as the kernel tells a program in that terminal
		t.Fatal(err)
	}
	n.awaitWritten("size 100 40 true", seen)
	if _, err := person.Write([]byte{3}); err != nil { // Ctrl-C
		t.Fatal(err)
	}
	select {
	case code := <-ended:
		if code != 42 {
			t.Errorf("Ctrl-C: got exit status %d, want the program's own 42\n%s", code, seen)
		}
	case <-time.After(soon):
		t.Fatalf("Ctrl-C did not reach the program: %q", seen)
	}
	if left := n.run("get"); strings.Contains(left, "web-") {
		t.Errorf("run left something behind:\n%s", left)
	}
}
