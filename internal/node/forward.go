package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"syscall"
	"time"

	"oscine.dev/oscine/internal/object"
)

// dialTimeout is how long a workload has to take a forwarded connection.
const dialTimeout = 10 * time.Second

// Dial connects to a TCP port of a running workload, published or not. What
// listens on the workload's own loopback address only is out of reach.
func (n *Node) Dial(ctx context.Context, workload string, port int) (net.Conn, error) {
	if port < 1 || port > 65535 {
		return nil, object.Errors{{Path: "port", Reason: fmt.Sprintf("must be from 1 to 65535, got %d", port)}}
	}
	if _, err := n.runningWorkload(ctx, workload); err != nil {
		return nil, err
	}
	states, err := n.Get(object.KindWorkload, workload)
	if err != nil {
		return nil, err
	}
	address := ""
	if len(states) == 1 {
		if st, ok := states[0].Status.(*object.WorkloadStatus); ok {
			address = st.Address
		}
	}
	if address == "" {
		return nil, fmt.Errorf("%w: workload %s has no address yet: see oscine describe workload %s", ErrConflict, workload, workload)
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort(address, strconv.Itoa(port)))
	if errors.Is(err, syscall.ECONNREFUSED) {
		return nil, fmt.Errorf("%w: nothing listens on TCP port %d of workload %s, on its address %s", ErrConflict, port, workload, address)
	}
	if err != nil {
		return nil, fmt.Errorf("connect to port %d of workload %s: %w", port, workload, err)
	}
	return conn, nil
}
