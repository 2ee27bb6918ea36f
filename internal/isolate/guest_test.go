package isolate

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"oscine.dev/oscine/internal/bench/guest"
	"oscine.dev/oscine/internal/bench/guest/guesttest"
	"oscine.dev/oscine/internal/bench/latency"
)

// TestMain lets the test program be three things: the tests, the init of a
// guest that runs those named TestKernel…, and a measuring or reading process
// there.
func TestMain(m *testing.M) {
	switch {
	case len(os.Args) == 3 && os.Args[1] == "child":
		if err := latency.RunChild(os.Args[2], os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	case len(os.Args) == 5 && os.Args[1] == "read":
		if err := readPart(os.Args[2], os.Args[3], os.Args[4]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	case len(os.Args) == 2 && os.Args[1] == "hold":
		hold()
	case guest.Inside() && os.Getpid() == 1:
		guest.Main(m.Run)
	default:
		os.Exit(m.Run())
	}
}

// readPart reads so many bytes of a file from an offset, both decimal.
func readPart(file, offset, bytes string) error {
	var from, size int64
	if _, err := fmt.Sscan(offset+" "+bytes, &from, &size); err != nil {
		return err
	}
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(io.Discard, io.NewSectionReader(f, from, size))
	return err
}

// held is how much memory hold takes.
const held = 16 << 20

// hold touches memory, says so, and keeps it until its input ends.
func hold() {
	block := make([]byte, held)
	for i := range block {
		block[i] = 1
	}
	fmt.Println("held")
	_, _ = io.Copy(io.Discard, os.Stdin)
	runtime.KeepAlive(block)
}

// TestInMachine boots the product's kernel with this test program as its init.
func TestInMachine(t *testing.T) {
	guesttest.Need(t)
	for _, kernel := range []string{"cloud", "rt"} {
		t.Run(kernel, func(t *testing.T) {
			t.Parallel()
			if kernel == "rt" && testing.Short() {
				t.Skip("the real-time kernel is fetched: not with -short")
			}
			runInGuest(t, kernel)
		})
	}
}

func runInGuest(t *testing.T, kernel string) {
	disk := filepath.Join(t.TempDir(), "disk.img")
	if err := os.WriteFile(disk, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(disk, 64<<20); err != nil {
		t.Fatal(err)
	}
	guesttest.RunKernelTests(t, guest.Options{
		Kernel: kernel, CPUs: "4,sockets=1,cores=2,threads=2", Memory: 1024,
		ExtraArgs: []string{
			"-drive", "if=none,id=disk,format=raw,file=" + disk, "-device", "nvme,drive=disk,serial=oscine",
			"-object", "memory-backend-ram,id=m0,size=512M", "-numa", "node,nodeid=0,cpus=0-1,memdev=m0",
			"-object", "memory-backend-ram,id=m1,size=512M", "-numa", "node,nodeid=1,cpus=2-3,memdev=m1",
		},
	}, 15*time.Minute)
}
