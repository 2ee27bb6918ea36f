package machine_test

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"net"
	"testing"
	"time"
)

// gdb speaks the remote protocol of the GNU debugger, as far as hanging a
// machine takes (https://sourceware.org/gdb/current/onlinedocs/gdb.html/Remote-Protocol.html).
type gdb struct {
	net.Conn
	in *bufio.Reader
}

// call sends a packet and returns the answer.
func (g gdb) call(packet string) (string, error) {
	sum := byte(0)
	for _, c := range []byte(packet) {
		sum += c
	}
	if _, err := fmt.Fprintf(g, "$%s#%02x", packet, sum); err != nil {
		return "", err
	}
	return g.answer()
}

func (g gdb) answer() (string, error) {
	if err := g.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return "", err
	}
	if _, err := g.in.ReadString('$'); err != nil {
		return "", err
	}
	text, err := g.in.ReadString('#')
	if err != nil {
		return "", err
	}
	if _, err := g.in.Discard(2); err != nil {
		return "", err
	}
	_, err = g.Write([]byte("+"))
	return text[:len(text)-1], err
}

// hangKernel replaces the next instructions of an x86-64 kernel by "disable
// interrupts, then jump here forever".
func hangKernel(t *testing.T, socket string) {
	t.Helper()
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	g := gdb{conn, bufio.NewReader(conn)}
	if _, err := g.call("?"); err != nil { // QEMU stops the machine for a debugger
		t.Fatal(err)
	}
	for range 200 {
		registers, err := g.call("g")
		if err != nil {
			t.Fatal(err)
		}
		raw, err := hex.DecodeString(registers)
		if err != nil || len(raw) < 144 {
			t.Fatalf("registers %q: %v", registers, err)
		}
		rip := raw[128:136] // after sixteen general ones, little endian
		if rip[7] == 0xff { // the kernel's half of the address space
			address := fmt.Sprintf("%02x%02x%02x%02x%02x%02x%02x%02x", rip[7], rip[6], rip[5], rip[4], rip[3], rip[2], rip[1], rip[0])
			if answer, err := g.call("M" + address + ",3:faebfe"); err != nil || answer != "OK" {
				t.Fatalf("write memory: %q, %v", answer, err)
			}
			if answer, err := g.call("D"); err != nil || answer != "OK" {
				t.Fatalf("let it run: %q, %v", answer, err)
			}
			return
		}
		// In a program: let the machine run a little and look again.
		if _, err := fmt.Fprint(g, "$c#63"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
		if _, err := g.Write([]byte{3}); err != nil {
			t.Fatal(err)
		}
		if _, err := g.answer(); err != nil {
			t.Fatal(err)
		}
	}
	t.Fatal("the machine was never seen in its kernel")
}
