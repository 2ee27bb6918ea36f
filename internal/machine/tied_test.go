package machine

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// tiedParent is in the environment of a process that starts a tied one and waits.
const tiedParent = "OSCINE_TEST_TIED_PARENT"

// TestTied kills the process that started a tied one: the kernel ends that too,
// and not before, whatever threads of the parent come and go.
func TestTied(t *testing.T) {
	if os.Getenv(tiedParent) != "" {
		startTied()
	}
	parent := exec.Command(os.Args[0], "-test.run=^TestTied$")
	parent.Env = append(os.Environ(), tiedParent+"=1")
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	pid, _ := strconv.Atoi(strings.TrimSpace(line))
	child, stateErr := readProcess(pid)
	if err != nil || stateErr != nil {
		t.Fatalf("the parent says %q, %v; its child: %v", line, err, stateErr)
	}
	tied := record{PID: pid, PIDStarted: child.started, BootID: bootID()}
	time.Sleep(200 * time.Millisecond)
	if !tied.alive() {
		t.Error("the tied process ended while its parent lives")
	}
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = parent.Wait() // it was killed
	for end := time.Now().Add(10 * time.Second); tied.alive(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			_ = tied.kill()
			t.Fatal("the tied process outlives its parent")
		}
	}
}

// startTied starts a tied process from a thread that ends at once, prints its
// number and waits to be killed.
func startTied() {
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with this function
		cmd := exec.Command("sleep", "600")
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if _, err := start(cmd); err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(cmd.Process.Pid)
	}()
	select {}
}
