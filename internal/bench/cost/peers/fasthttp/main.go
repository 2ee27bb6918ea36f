package main

import (
	"fmt"
	"net"
	"os"

	"github.com/valyala/fasthttp"
)

func main() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Printf("ready %s\n", l.Addr())
	err = fasthttp.Serve(l, func(c *fasthttp.RequestCtx) { c.SetBody(c.PostBody()) })
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
