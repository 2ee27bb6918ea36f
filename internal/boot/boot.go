package boot

import (
	"fmt"
	"os"
	"runtime/debug"
	"time"

	"golang.org/x/sys/unix"
	"oscine.dev/oscine/internal/release"
)

// Daemon is the program PID 1 supervises.
const Daemon = "/usr/bin/oscined"

// NotifySocket is where PID 1 listens for the sd_notify protocol of Daemon.
const NotifySocket = "/run/oscine/notify"

// FactsFile holds the facts of this boot for the daemon.
const FactsFile = runDir + "/" + release.FactsFile

const runDir = "/run/oscine"

// Main runs the stage this process finds itself in and never returns: stage 1
// when the root is still the initramfs, else PID 1. Beside process 1 the kernel
// runs it as its modprobe; for anyone else it is an error.
func Main() {
	if os.Getpid() != 1 {
		os.Exit(notFirst(os.Args[1:]))
	}
	debug.SetGCPercent(50)
	onRAM := rootIsRAM("/")
	early := earlyMounts()
	log := OpenLog()
	for _, err := range early {
		log.Error("%v", err)
	}
	if onRAM {
		err := guard("stage 1", func() error { return stage1(log) })
		log.Error("cannot start the system: %v", err)
		rebootLater(log, stage1FailureDelay)
	}
	kept := &lasting{good: make(chan struct{})}
	for {
		err := guard("PID 1", func() error { return pid1(log, kept) })
		log.Error("PID 1 starts over: %v", err)
		time.Sleep(time.Second)
	}
}

func notFirst(args []string) (exitStatus int) {
	if len(args) < 3 || args[0] != "-q" || args[1] != "--" {
		fmt.Fprintln(os.Stderr, "init: only the kernel and the daemon start this program, as process 1 or as modprobe")
		return 2
	}
	if modprobe(args) != nil {
		return 1
	}
	return 0
}

// stage1FailureDelay leaves a person at the console time to read why.
const stage1FailureDelay = 10 * time.Second

func rebootLater(log *Log, delay time.Duration) {
	log.Error("restarting the machine in %s", delay)
	time.Sleep(delay)
	for {
		unix.Sync()
		err := unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
		log.Error("restart: %v", err)
		time.Sleep(time.Second)
	}
}

// guard turns a panic of f into an error: process 1 must outlive its own bugs.
func guard(what string, f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%s panicked: %v", what, r)
		}
	}()
	return f()
}

// background runs f in a goroutine that can neither panic nor fail unheard.
func background(log *Log, what string, f func() error) {
	go func() {
		if err := guard(what, f); err != nil {
			log.Error("%s: %v", what, err)
		}
	}()
}

// rootIsRAM reports whether path lies on a file system in memory, as the
// kernel's initramfs does.
func rootIsRAM(path string) bool {
	var fs unix.Statfs_t
	if unix.Statfs(path, &fs) != nil {
		return false
	}
	return fs.Type == unix.RAMFS_MAGIC || fs.Type == unix.TMPFS_MAGIC
}

// uptime is the time since the kernel started.
func uptime() time.Duration {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}
