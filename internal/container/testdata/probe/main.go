// Command probe is the program in the images of the tests: it does one thing
// after another, as its arguments say, and prints what came of it.
package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

func main() {
	args := os.Args[1:]
	for len(args) > 0 {
		verb := args[0]
		args = args[1:]
		next := func() string { v := args[0]; args = args[1:]; return v }
		switch verb {
		case "say":
			fmt.Println(next())
		case "complain":
			fmt.Fprintln(os.Stderr, next())
		case "say-to": // a file such as /dev/stdout
			f, err := os.OpenFile(next(), os.O_WRONLY, 0)
			if err == nil {
				_, err = fmt.Fprintln(f, "opened again")
			}
			fmt.Println("say-to", err)
		case "id":
			fmt.Println("id", os.Getuid(), os.Getgid())
		case "status":
			text, _ := os.ReadFile("/proc/self/status")
			name := next()
			for line := range strings.SplitSeq(string(text), "\n") {
				if strings.HasPrefix(line, name+":") {
					fmt.Println(strings.Join(strings.Fields(line), " "))
				}
			}
		case "read":
			data, err := os.ReadFile(next())
			fmt.Println("read", strings.TrimSpace(string(data)), err)
		case "write":
			fmt.Println("write", os.WriteFile(next(), []byte("x\n"), 0o644))
		case "own":
			info, err := os.Stat(next())
			if err != nil {
				fmt.Println("own", err)
				break
			}
			stat := info.Sys().(*syscall.Stat_t)
			fmt.Println("own", stat.Uid, stat.Gid)
		case "env":
			fmt.Println("env", os.Getenv(next()))
		case "cwd":
			fmt.Println(os.Getwd())
		case "hostname":
			fmt.Println(os.Hostname())
		case "links":
			all, _ := net.Interfaces()
			for _, i := range all {
				fmt.Println("link", i.Name)
			}
		case "listen":
			_, err := net.Listen("tcp", next())
			fmt.Println("listen", err)
		case "keyctl": // allowed to all by the kernel, filtered by the default profile
			_, _, errno := syscall.Syscall(sysKeyctl, 0, uintptr(0xfffffffd), 1)
			fmt.Println("keyctl", errno)
		case "unshare":
			fmt.Println("unshare", syscall.Unshare(syscall.CLONE_NEWUSER))
		case "tty":
			var size [4]uint16
			_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, 0, syscall.TIOCGWINSZ, uintptr(unsafe.Pointer(&size)))
			fmt.Println("tty", errno == 0, size[1], size[0])
		case "cat":
			io.Copy(os.Stdout, os.Stdin)
		case "eat": // memory, in MiB
			n, _ := strconv.Atoi(next())
			var kept [][]byte
			for range n {
				kept = append(kept, bytes.Repeat([]byte{1}, 1<<20))
			}
			fmt.Println("ate", len(kept))
		case "fork":
			n, _ := strconv.Atoi(next())
			var err error
			for range n {
				if _, err = os.StartProcess("/probe", []string{"probe", "sleep", "1"}, &os.ProcAttr{}); err != nil {
					break
				}
			}
			fmt.Println("fork", err)
		case "flood":
			n, _ := strconv.Atoi(next())
			for i := range n {
				fmt.Println("flood", i, strings.Repeat("x", 100))
			}
		case "sleep":
			n, _ := strconv.Atoi(next())
			time.Sleep(time.Duration(n) * time.Second)
		case "serve": // until SIGTERM
			stop := make(chan os.Signal, 1)
			signal.Notify(stop, syscall.SIGTERM)
			fmt.Println("ready")
			<-stop
			fmt.Println("bye")
		case "ignore": // SIGTERM
			signal.Ignore(syscall.SIGTERM)
			fmt.Println("ready")
			time.Sleep(time.Hour)
		case "exit":
			n, _ := strconv.Atoi(next())
			os.Exit(n)
		default:
			fmt.Println("unknown", verb)
			os.Exit(99)
		}
	}
}
