// Command web is the program in the test images: it does what its first
// argument says.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	verb := "serve"
	if len(os.Args) > 1 {
		verb = os.Args[1]
	}
	switch verb {
	case "serve": // on :8080 until killed
		serve()
	case "say":
		fmt.Println(strings.Join(os.Args[2:], " "))
		fmt.Fprintln(os.Stderr, "and this to stderr")
	case "exit":
		code, err := strconv.Atoi(os.Args[2])
		if err != nil {
			code = 99
		}
		os.Exit(code)
	case "cat": // standard input to standard output, in capitals
		lines := bufio.NewScanner(os.Stdin)
		for lines.Scan() {
			fmt.Println(strings.ToUpper(lines.Text()))
		}
	case "terminal": // its size, and each that follows, until an interrupt: then 42
		terminal()
	case "env": // the value of a variable
		fmt.Print(os.Getenv(os.Args[2]))
	case "file": // the content of a file
		content, err := os.ReadFile(os.Args[2])
		if err != nil {
			fmt.Print(err)
		}
		os.Stdout.Write(content)
	case "facts":
		facts()
	case "sleep":
		time.Sleep(time.Hour)
	case "spin":
		spin()
	case "copy":
		copyMemory()
	case "fork":
		fork()
	case "fill":
		fill(os.Args[2])
	case "litter":
		litter(os.Args[2])
	case "policy":
		policy()
	case "eat": // memory without end
		var kept [][]byte
		for {
			block := make([]byte, 1<<20)
			for i := range block {
				block[i] = byte(i)
			}
			kept = append(kept, block)
			time.Sleep(time.Millisecond * time.Duration(len(kept)/1000))
		}
	}
}

func serve() {
	started := time.Now().Format(time.RFC3339Nano)
	sick := false
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, "hello from", started) })
	http.HandleFunc("/health", func(w http.ResponseWriter, r *http.Request) {
		if sick {
			http.Error(w, "sick", http.StatusInternalServerError)
		}
	})
	http.HandleFunc("/sicken", func(w http.ResponseWriter, r *http.Request) { sick = true })
	http.HandleFunc("/count", func(w http.ResponseWriter, r *http.Request) {
		raw, err := os.ReadFile("/data/count")
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		n, _ := strconv.Atoi(string(raw))
		n++
		if err := os.WriteFile("/data/count", []byte(strconv.Itoa(n)), 0o600); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		fmt.Fprintln(w, n)
	})
	fmt.Println("listening on 8080")
	if err := http.ListenAndServe(":8080", nil); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// facts prints what the sandbox looks like from inside.
func facts() {
	fmt.Println("uid", os.Getuid())
	status, _ := os.ReadFile("/proc/self/status")
	for line := range strings.SplitSeq(string(status), "\n") {
		for _, name := range []string{"CapEff:", "NoNewPrivs:", "Seccomp:", "Cpus_allowed_list:", "Mems_allowed_list:"} {
			if strings.HasPrefix(line, name) {
				fmt.Println(strings.Join(strings.Fields(line), " "))
			}
		}
	}
	uids, _ := os.ReadFile("/proc/self/uid_map")
	fmt.Println("uid_map", strings.Join(strings.Fields(string(uids)), " "))
	fmt.Println("write to the root:", os.WriteFile("/file", nil, 0o600))
	fmt.Println("write to /tmp:", os.WriteFile("/tmp/file", nil, 0o600))
	fmt.Println("cpus", runtime.NumCPU())
	var files syscall.Rlimit
	err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files)
	fmt.Println("more than 4096 open files:", err == nil && files.Max > 4096)
}
