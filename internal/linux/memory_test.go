package linux

import (
	"os"
	"os/exec"
	"runtime"
	"testing"
)

func TestResidentBytes(t *testing.T) {
	before, err := ResidentBytes(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	const size = 64 << 20
	memory := make([]byte, size)
	for i := 0; i < size; i += os.Getpagesize() {
		memory[i] = 1
	}
	after, err := ResidentBytes(os.Getpid())
	if err != nil || after-before < size*9/10 || after-before > size*2 {
		t.Errorf("got %d bytes more, %v; want about %d", after-before, err, size)
	}
	runtime.KeepAlive(memory)
	ended := exec.Command("true")
	if err := ended.Run(); err != nil {
		t.Fatal(err)
	}
	if n, err := ResidentBytes(ended.Process.Pid); err == nil {
		t.Errorf("a process that has ended has %d bytes", n)
	}
}
