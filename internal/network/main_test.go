package network

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
)

// TestMain runs the tests of a root user again inside a fresh network,
// mount and host name namespace, so that no test can touch those of the host.
func TestMain(m *testing.M) {
	if os.Getenv("OSCINE_NETWORK_TEST") == "isolated" {
		if err := raiseLoopback(); err != nil {
			fmt.Fprintln(os.Stderr, "bring up lo of the tests:", err)
			os.Exit(1)
		}
	}
	if os.Getuid() != 0 || os.Getenv("OSCINE_NETWORK_TEST") != "" {
		os.Exit(m.Run())
	}
	self := exec.Command("/proc/self/exe", os.Args[1:]...)
	self.Env = append(os.Environ(), "OSCINE_NETWORK_TEST=isolated")
	self.Stdin, self.Stdout, self.Stderr = os.Stdin, os.Stdout, os.Stderr
	self.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWUTS, Unshareflags: syscall.CLONE_NEWNS}
	runtime.LockOSThread()
	err := self.Run()
	if self.ProcessState == nil {
		// No right to make namespaces: the tests that need one say so.
		fmt.Fprintln(os.Stderr, "network tests outside a namespace of their own:", err)
		os.Exit(m.Run())
	}
	os.Exit(self.ProcessState.ExitCode())
}

func raiseLoopback() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(lo)
}

// needIsolation skips a test that changes the network.
func needIsolation(t *testing.T) {
	t.Helper()
	if os.Getenv("OSCINE_NETWORK_TEST") != "isolated" {
		t.Skip("needs root and the right to make network namespaces")
	}
}
