// Package machine runs local QEMU machines from disk images, for people and for
// the tests: their disks (overlays, so the image is never written), firmware
// variables, forwarded ports, console and power. Each machine is a folder below
// the state folder and a QEMU process that outlives the program which started
// it, unless it was tied to that. A booted machine can be saved, and any number
// of machines resumed from it. Only a process whose start time is on record is ever signalled. The
// package knows images and QEMU, and nothing of what runs inside a machine.
package machine
