package oip

import (
	"context"
	"net"
	"net/http"
)

// Socket is where workloads that ask for inference find the node's socket.
const Socket = "/run/oscine/inference.sock"

// Unix returns a client of the server that listens on a Unix socket, such as
// Socket. Close its HTTP client's idle connections when it is no longer needed.
func Unix(path string) *Client {
	return &Client{URL: "http://node", HTTP: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", path)
		},
		MaxIdleConnsPerHost: 64,
	}}}
}
