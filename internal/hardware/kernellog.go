package hardware

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const kernelLogFile = "/dev/kmsg"

// kernelLog delivers the kernel's messages from now on.
func kernelLog(ctx context.Context) (<-chan string, error) {
	f, err := os.OpenFile(kernelLogFile, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if _, err := f.Seek(0, io.SeekEnd); err != nil {
		_ = f.Close()
		return nil, err
	}
	lines := make(chan string, 16)
	stop := context.AfterFunc(ctx, func() { _ = f.Close() })
	go func() {
		defer close(lines)
		defer stop()
		r := bufio.NewReaderSize(f, 8<<10) // a record is at most a page
		for {
			line, err := r.ReadString('\n')
			if errors.Is(err, unix.EPIPE) {
				continue // messages were overwritten before they were read
			}
			if err != nil {
				return
			}
			// "6,1234,567890,-;message": keep the message.
			if _, message, ok := strings.Cut(line, ";"); ok {
				select {
				case lines <- strings.TrimSpace(message):
				case <-ctx.Done():
					return
				}
			}
		}
	}()
	return lines, nil
}

// Fault is what a message of the kernel says of a device.
type Fault struct {
	Address string // PCI address
	State   string // degraded or lost
	Reason  string
}

// parseFault understands the messages of drivers about a failing
// device: NVIDIA's Xid and the PCI Express error reports.
func parseFault(line string) (Fault, bool) {
	if f, ok := parseXid(line); ok {
		return f, true
	}
	// "nvidia 0000:3b:00.0: PCIe Bus Error: severity=Uncorrected (Fatal), …"
	before, after, ok := strings.Cut(line, ": PCIe Bus Error: severity=")
	if !ok || strings.HasPrefix(after, "Corrected") {
		return Fault{}, false
	}
	fields := strings.Fields(before)
	if len(fields) == 0 {
		return Fault{}, false
	}
	address, ok := pciAddress(fields[len(fields)-1])
	severity, _, _ := strings.Cut(after, ",")
	return Fault{address, "degraded", "PCI error, " + clip(severity)}, ok
}

// xidStates are the Xid errors that concern the device and not the program
// that ran on it. NVIDIA, "XID Errors", r555.
func xidState(xid int) (state, meaning string) {
	switch xid {
	case 48:
		return "degraded", "double-bit memory error"
	case 63, 64:
		return "degraded", "memory page or row retired"
	case 74:
		return "degraded", "NVLink error"
	case 79:
		return "lost", "fallen off the bus"
	case 92:
		return "degraded", "many single-bit memory errors"
	case 94:
		return "degraded", "contained memory error"
	case 95:
		return "degraded", "uncontained memory error"
	case 119, 120:
		return "degraded", "GPU system processor does not answer"
	case 140:
		return "degraded", "unrecovered memory error"
	}
	return "", ""
}

func parseXid(line string) (Fault, bool) {
	m := regexp.MustCompile(`NVRM: Xid \(PCI:([0-9a-fA-F:.]{7,16})\): (\d{1,4})`).FindStringSubmatch(line)
	if m == nil {
		return Fault{}, false
	}
	address, ok := pciAddress(m[1])
	if !ok {
		if address, ok = pciAddress(m[1] + ".0"); !ok {
			return Fault{}, false
		}
	}
	xid, _ := strconv.Atoi(m[2])
	state, meaning := xidState(xid)
	if state == "" {
		return Fault{}, false
	}
	return Fault{address, state, fmt.Sprintf("Xid %d, %s", xid, meaning)}, true
}

// kernelRecord marks the device that a message is about.
func (w *watcher) kernelRecord(line string) []Change {
	f, ok := parseFault(line)
	if !ok || w.m.Accelerator(f.Address) == nil {
		return nil
	}
	before := w.m
	s := w.edit()
	reason := "driver: " + f.Reason
	for i := range s.m.Accelerators {
		a := &s.m.Accelerators[i]
		if a.Function() != f.Address {
			continue
		}
		if a.Health.State != "lost" {
			a.Health.State = f.State
		}
		if !slices.Contains(a.Health.Reasons, reason) && len(a.Health.Reasons) < 16 {
			a.Health.Reasons = append(a.Health.Reasons, reason)
		}
	}
	return Differences(before, w.m)
}
