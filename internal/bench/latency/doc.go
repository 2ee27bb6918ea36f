// Package latency measures how late a thread wakes: a worker sleeps until
// absolute times and records by how much it came late, as cyclictest does,
// while load processes keep the machine busy. It owns the worker, the loads,
// the histogram and how they are shown; where the processes run and under
// which policy is decided by its caller with internal/isolate.
package latency
