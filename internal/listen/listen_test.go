package listen

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"
)

// addressed is a connection that says it comes from an address.
type addressed struct {
	net.Conn
	from net.Addr
}

func (a addressed) RemoteAddr() net.Addr { return a.from }

// fake hands out the connections that it is given.
type fake struct{ incoming chan net.Conn }

func (f *fake) Accept() (net.Conn, error) {
	c, ok := <-f.incoming
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}
func (f *fake) Close() error   { return nil }
func (f *fake) Addr() net.Addr { return &net.TCPAddr{} }

// dial gives the listener a connection from an address and returns the
// client's end.
func (f *fake) dial(from string) net.Conn {
	client, server := net.Pipe()
	f.incoming <- addressed{server, &net.TCPAddr{IP: net.ParseIP(from), Port: 1}}
	return client
}

func open(c net.Conn) bool {
	_ = c.SetReadDeadline(time.Now().Add(20 * time.Millisecond)) // a pipe takes any deadline
	_, err := c.Read(make([]byte, 1))
	return err != io.EOF
}

func TestStrangersGiveWay(t *testing.T) {
	f := &fake{make(chan net.Conn, 16)}
	l := New(f, Limits{Strangers: 2, StrangersPerAddress: 2, Clients: 8, ClientsPerAddress: 8})
	var clients, served []net.Conn
	for i := range 3 {
		clients = append(clients, f.dial(fmt.Sprintf("10.0.0.%d", i+1)))
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		served = append(served, c)
	}
	if open(clients[0]) || !open(clients[1]) || !open(clients[2]) {
		t.Error("the oldest of three strangers is to give way, and no other")
	}
	l.known(served[1]) // now there is room for one stranger more
	clients = append(clients, f.dial("10.0.0.9"))
	if _, err := l.Accept(); err != nil {
		t.Fatal(err)
	}
	if !open(clients[1]) || !open(clients[2]) || !open(clients[3]) {
		t.Error("a client, or one of two strangers, was closed")
	}
}

func TestBoundsPerAddress(t *testing.T) {
	f := &fake{make(chan net.Conn, 16)}
	l := New(f, Limits{Strangers: 100, StrangersPerAddress: 2, Clients: 100, ClientsPerAddress: 3})
	go func() {
		for {
			if _, err := l.Accept(); err != nil {
				return
			}
		}
	}()
	defer close(f.incoming)
	a, b, c := f.dial("10.0.0.1"), f.dial("10.0.0.1"), f.dial("10.0.0.1")
	other := f.dial("10.0.0.2")
	if !open(a) || !open(b) || open(c) || !open(other) {
		t.Error("the third of one address is to be closed, and no other")
	}
}

func TestRoomComesBack(t *testing.T) {
	f := &fake{make(chan net.Conn, 16)}
	l := New(f, Limits{Strangers: 4, StrangersPerAddress: 1, Clients: 1, ClientsPerAddress: 1})
	for range 10 {
		f.dial("2001:db8::1")
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		l.known(c)
		c.Close()
		c.Close()
	}
	if len(l.from) != 0 || l.clients != 0 || l.strangers.Len() != 0 {
		t.Errorf("all have left, and %d addresses, %d clients, %d strangers are counted", len(l.from), l.clients, l.strangers.Len())
	}
}

func TestAddress(t *testing.T) {
	for from, want := range map[string]string{
		"192.0.2.7:80": "192.0.2.7", "[::ffff:192.0.2.7]:80": "192.0.2.7", "[2001:db8:1:2:3::4]:80": "2001:db8:1:2::/64", "[fe80::1%eth0]:1": "fe80::/64",
	} {
		a, err := net.ResolveTCPAddr("tcp", from)
		if err != nil {
			t.Fatal(err)
		}
		if got := Address(a); got != want {
			t.Errorf("%s: got %s, want %s", from, got, want)
		}
	}
}

// TestServerTells has a real server on loopback say who its clients are.
func TestServerTells(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := New(inner, Limits{Strangers: 2, StrangersPerAddress: 2, Clients: 4, ClientsPerAddress: 4})
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") })}
	l.Watch(server)
	go server.Serve(l)
	defer server.Close()
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	resp, err := client.Get("http://" + inner.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.clients != 1 || l.strangers.Len() != 0 {
		t.Errorf("%d clients and %d strangers, want one client", l.clients, l.strangers.Len())
	}
}
