package release

import "strings"

// Request is what the daemon may ask PID 1 to do with the machine.
type Request string

// The requests; PID 1 takes any other for none.
const (
	RequestNone     Request = ""
	RequestReboot   Request = "reboot"
	RequestPowerOff Request = "poweroff"
)

// Trial is what the daemon says of a version on trial.
type Trial string

// What may be said; PID 1 takes anything else for TrialNone. Without a word READY
// is enough for PID 1 to find the version good.
const (
	TrialNone Trial = ""
	// TrialPending: READY is not enough, the daemon goes on checking.
	TrialPending Trial = "pending"
	// TrialGood: the version works.
	TrialGood Trial = "good"
	// TrialFailed: the version must go; Status says why.
	TrialFailed Trial = "failed"
)

// InitLogPrefix begins each line that stage 1 and PID 1 write to the kernel's log.
const InitLogPrefix = "oscine-init: "

// MaxStatus is the most bytes of Notification.Status.
const MaxStatus = 200

// Notification is one datagram from the daemon to PID 1: sd_notify(3), as far as
// PID 1 acts on it, and two words of our own, X_OSCINE and X_OSCINE_TRIAL.
type Notification struct {
	Ready    bool    // READY=1: the daemon is up
	Watchdog bool    // WATCHDOG=1: the daemon answers
	Stopping bool    // STOPPING=1
	Status   string  // STATUS=…: for people, one line of at most MaxStatus bytes
	Request  Request // X_OSCINE=…
	Trial    Trial   // X_OSCINE_TRIAL=…
}

// String is the datagram.
func (n Notification) String() string {
	var lines []string
	for _, flag := range []struct {
		set  bool
		line string
	}{{n.Ready, "READY=1"}, {n.Watchdog, "WATCHDOG=1"}, {n.Stopping, "STOPPING=1"}} {
		if flag.set {
			lines = append(lines, flag.line)
		}
	}
	if n.Status != "" {
		lines = append(lines, "STATUS="+oneLine(n.Status))
	}
	if n.Request != RequestNone {
		lines = append(lines, "X_OSCINE="+string(n.Request))
	}
	if n.Trial != TrialNone {
		lines = append(lines, "X_OSCINE_TRIAL="+string(n.Trial))
	}
	return strings.Join(lines, "\n")
}

// ParseNotification reads a datagram; lines it does not know are skipped.
func ParseNotification(datagram string) Notification {
	var n Notification
	for line := range strings.SplitSeq(datagram, "\n") {
		key, value, _ := strings.Cut(line, "=")
		switch key {
		case "READY":
			n.Ready = n.Ready || value == "1"
		case "WATCHDOG":
			n.Watchdog = n.Watchdog || value == "1"
		case "STOPPING":
			n.Stopping = n.Stopping || value == "1"
		case "STATUS":
			n.Status = oneLine(value)
		case "X_OSCINE":
			if r := Request(value); r == RequestReboot || r == RequestPowerOff {
				n.Request = r
			}
		case "X_OSCINE_TRIAL":
			if t := Trial(value); t == TrialPending || t == TrialGood || t == TrialFailed {
				n.Trial = t
			}
		}
	}
	return n
}

func oneLine(text string) string {
	text = strings.ReplaceAll(text, "\n", " ")
	return text[:min(len(text), MaxStatus)]
}
