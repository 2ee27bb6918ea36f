// Program hangs takes the place of oscined in a release that is broken: it says
// once that it lives, and then nothing more.
package main

import (
	"fmt"
	"net"
	"os"
)

func main() {
	conn, err := net.Dial("unixgram", os.Getenv("NOTIFY_SOCKET"))
	if err == nil {
		_, err = conn.Write([]byte("WATCHDOG=1"))
	}
	fmt.Fprintln(os.Stderr, "this daemon hangs:", err)
	select {}
}
