package network

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"oscine.dev/oscine/internal/object"
)

// PortTakenError says who holds a port that a workload wants to publish.
type PortTakenError struct {
	Protocol string // tcp or udp
	Port     int
	Holder   string // such as "workload web" or "process nginx (pid 812)"
}

// Error names the port, its holder and the next step.
func (e *PortTakenError) Error() string {
	return fmt.Sprintf("port %d/%s of the node is taken by %s: choose another hostPort or stop its holder", e.Port, e.Protocol, e.Holder)
}

// reservations hold a socket for every published port. The firewall takes the
// packets before they get there; the socket makes the kernel refuse the port
// to anybody else, and this daemon to what somebody else has.
type reservations map[string]io.Closer

func portKey(p object.Port) string { return fmt.Sprintf("%s/%d", protocolOf(p), hostPortOf(p)) }

func protocolOf(p object.Port) string {
	if p.Protocol == "" {
		return "tcp"
	}
	return p.Protocol
}

func hostPortOf(p object.Port) int {
	if p.HostPort == 0 {
		return p.Port
	}
	return p.HostPort
}

// claim makes ports the ports of id, all or none.
func (b *Bridge) claim(id string, ports []object.Port) error {
	for _, p := range ports {
		for other, theirs := range b.ports {
			for _, t := range theirs {
				if other != id && portKey(t) == portKey(p) {
					return &PortTakenError{Protocol: protocolOf(p), Port: hostPortOf(p), Holder: "workload " + other}
				}
			}
		}
	}
	var fresh []string
	for _, p := range ports {
		key := portKey(p)
		if b.reserved[key] != nil {
			continue
		}
		socket, err := reserve(p)
		if err != nil {
			b.release(fresh...)
			return err
		}
		b.reserved[key] = socket
		fresh = append(fresh, key)
	}
	kept := map[string]bool{}
	for _, p := range ports {
		kept[portKey(p)] = true
	}
	for _, p := range b.ports[id] {
		if !kept[portKey(p)] {
			b.release(portKey(p))
		}
	}
	b.ports[id] = ports
	return nil
}

// forget gives the ports of id back.
func (b *Bridge) forget(id string) {
	for _, p := range b.ports[id] {
		b.release(portKey(p))
	}
	delete(b.ports, id)
	delete(b.admitted, id)
}

func (b *Bridge) release(keys ...string) {
	for _, key := range keys {
		if s := b.reserved[key]; s != nil {
			if err := s.Close(); err != nil {
				b.log.Warn("release port", "port", key, "error", err)
			}
			delete(b.reserved, key)
		}
	}
}

func reserve(p object.Port) (io.Closer, error) {
	proto, port := protocolOf(p), hostPortOf(p)
	address := ":" + strconv.Itoa(port)
	var socket io.Closer
	var err error
	switch proto {
	case "udp":
		socket, err = net.ListenPacket("udp4", address)
	default:
		var l net.Listener
		if l, err = net.Listen("tcp4", address); err == nil {
			go refuse(l)
			socket = l
		}
	}
	if errors.Is(err, unix.EADDRINUSE) {
		return nil, &PortTakenError{Protocol: proto, Port: port, Holder: holderOf("/proc", proto, port)}
	}
	if err != nil {
		return nil, fmt.Errorf("reserve port %d/%s: %w", port, proto, err)
	}
	return socket, nil
}

// refuse closes what arrives in the moment before the firewall knows the port.
func refuse(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		_ = c.Close() // nothing was sent that could be lost
	}
}

// holderOf names the process that has a port, from proc, a /proc tree. Without
// the right to see it, it says so.
func holderOf(proc, proto string, port int) string {
	inodes := map[string]bool{}
	for _, table := range []string{proto, proto + "6"} {
		f, err := os.Open(filepath.Join(proc, "thread-self", "net", table))
		if err != nil {
			continue
		}
		for _, inode := range listeners(f, proto, port) {
			inodes["socket:["+inode+"]"] = true
		}
		f.Close()
	}
	fds, err := filepath.Glob(filepath.Join(proc, "[0-9]*", "fd", "*"))
	if err != nil || len(inodes) == 0 {
		return "a process that cannot be seen from here"
	}
	for _, fd := range fds {
		target, err := os.Readlink(fd)
		if err != nil || !inodes[target] {
			continue
		}
		dir := filepath.Dir(filepath.Dir(fd))
		name, err := os.ReadFile(filepath.Join(dir, "comm"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			continue
		}
		return fmt.Sprintf("process %s (pid %s)", strings.TrimSpace(string(name)), filepath.Base(dir))
	}
	return "a process that cannot be seen from here"
}

// listeners reads the inodes of the sockets bound to port from a table of
// /proc/net; see proc_net_tcp in the kernel's documentation.
func listeners(table io.Reader, proto string, port int) []string {
	const listen, limit = "0A", 64 << 20
	var inodes []string
	for lines := bufio.NewScanner(io.LimitReader(table, limit)); lines.Scan(); {
		f := strings.Fields(lines.Text())
		if len(f) < 10 || (proto == "tcp" && f[3] != listen) {
			continue
		}
		_, hex, ok := strings.Cut(f[1], ":")
		if n, err := strconv.ParseUint(hex, 16, 16); ok && err == nil && int(n) == port {
			inodes = append(inodes, f[9])
		}
	}
	return inodes
}
