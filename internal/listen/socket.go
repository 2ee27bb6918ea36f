package listen

import "net"

// Socket is the connection of the kernel below those of this and of other packages
// that wrap it.
func Socket(c net.Conn) net.Conn {
	for {
		switch outer := c.(type) {
		case *conn:
			c = outer.Conn
		case interface{ NetConn() net.Conn }:
			c = outer.NetConn()
		default:
			return c
		}
	}
}
