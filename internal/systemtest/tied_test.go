package systemtest

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// startTied starts a command that ends with this process, however that ends: a
// test that runs out of time cleans nothing up. How the command ended comes from
// the channel.
func startTied(c *exec.Cmd) (<-chan error, error) {
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	started, ended := make(chan error), make(chan error, 1)
	go func() {
		// The signal comes when the thread that started it ends, so that one stays.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := c.Start()
		started <- err
		if err == nil {
			ended <- c.Wait()
		}
	}()
	return ended, <-started
}

const tiedVariable = "OSCINE_TEST_TIED"

// TestTied ends a process without any cleaning up, and with it goes what it
// started.
func TestTied(t *testing.T) {
	if os.Getenv(tiedVariable) != "" {
		c := exec.Command("sleep", "1000")
		if _, err := startTied(c); err != nil {
			fmt.Println(err)
		}
		fmt.Println("started", c.Process.Pid)
		os.Exit(2)
	}
	self := exec.Command(os.Args[0], "-test.run=^TestTied$")
	self.Env = append(os.Environ(), tiedVariable+"=1")
	out, err := self.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := self.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	_ = self.Wait() // it ends with 2
	pid, numeric := strconv.Atoi(strings.TrimSpace(strings.TrimPrefix(line, "started ")))
	if err != nil || numeric != nil {
		t.Fatalf("%q, %v", line, err)
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
		if err != nil || strings.Contains(string(text), ") Z ") {
			return
		}
		if time.Now().After(end) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
			t.Fatalf("process %d still runs", pid)
		}
	}
}
