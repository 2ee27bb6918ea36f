package network

import (
	"context"
	"errors"
	"time"

	"github.com/vishvananda/netlink"
)

// Follow keeps the network right as the node's addresses change, until ctx
// ends: a link that gets its address late, as by DHCP after workloads have
// started, becomes a way in and out for them.
func (b *Bridge) Follow(ctx context.Context) {
	for ctx.Err() == nil {
		if err := b.followOnce(ctx); err != nil {
			b.log.Warn("follow the node's addresses", "error", err)
		}
		pause(ctx, time.Second)
	}
}

func (b *Bridge) followOnce(ctx context.Context) error {
	updates, done := make(chan netlink.AddrUpdate), make(chan struct{})
	defer close(done)
	var failure error
	options := netlink.AddrSubscribeOptions{ErrorCallback: func(err error) { failure = err }}
	if err := netlink.AddrSubscribeWithOptions(updates, done, options); err != nil {
		return explain(err, "netlink", "follow addresses")
	}
	defer func() {
		go func() { // the subscription may be about to send one more
			for range updates {
			}
		}()
	}()
	b.refresh() // for what changed while nobody listened
	var due <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case u, ok := <-updates:
			if !ok {
				return errors.Join(errors.New("the kernel dropped messages"), failure)
			}
			b.warnOfCollision(u)
			due = time.After(100 * time.Millisecond) // changes come in bunches
		case <-due:
			due = nil
			b.refresh()
		}
	}
}

func (b *Bridge) refresh() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.sync(); err != nil {
		b.log.Warn("open the workload network to the node's links", "error", err)
	}
}

// warnOfCollision warns of a network that came after the subnet was chosen.
func (b *Bridge) warnOfCollision(u netlink.AddrUpdate) {
	p, ok := prefixOf(&u.LinkAddress)
	subnet := b.Subnet()
	if !ok || !u.NewAddr || !p.Addr().Is4() || !subnet.IsValid() || !subnet.Overlaps(p) {
		return
	}
	if link, err := netlink.LinkByIndex(u.LinkIndex); err == nil && link.Attrs().Name != bridgeName {
		b.log.Error("the node got an address inside the workload network, and one of them cannot be reached: delete and apply all workloads to choose another subnet",
			"address", p, "link", link.Attrs().Name, "workloads", subnet)
	}
}
