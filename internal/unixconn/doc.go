// Package unixconn owns connections over Unix sockets that cost a server less to
// wait on. Go's runtime waits for a connection to become readable and writable at
// once, and a Unix socket is announced as writable whenever the other side has read:
// that wakes a thread for nothing, twice in each exchange. Here a connection is
// waited for through an epoll instance of its own, which tells only of what comes in.
// It knows no protocol.
package unixconn
