// Package worker owns what all engine programs share: the command line, the
// connection to the daemon, loading with a self-test, the loop of runs, joining
// requests into batches and dividing the answers, streams, cancellation,
// threads, statistics and exit statuses. An engine implements Engine and
// Session and adds a main of one line. The package knows no engine.
package worker
