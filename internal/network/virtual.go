package network

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"oscine.dev/oscine/internal/object"
)

// linkMark begins the alias of the VLANs and bonds that the node creates. The rest
// says how each was created, so that a later start replaces those that differ.
const linkMark = "oscine: "

// monitorInterval is how often a bond looks at the carrier of its devices, in ms.
const monitorInterval = 100

// markOf is the alias of the link that config has the node create; "" for one that
// is there by itself.
func markOf(config object.Interface) string {
	switch {
	case config.VLAN != nil:
		return fmt.Sprintf("%sVLAN %d on %s", linkMark, config.VLAN.ID, config.VLAN.Link)
	case config.Bond != nil:
		return fmt.Sprintf("%sbond %s %s", linkMark, config.Bond.Mode, config.Bond.LACPRate)
	}
	return ""
}

// removeUnconfigured removes VLANs and bonds that an earlier start created and that
// are configured no longer, or differently.
func (n *Node) removeUnconfigured() error {
	links, err := netlink.LinkList()
	if err != nil {
		return explain(err, "netlink", "list links")
	}
	for _, l := range links {
		attrs := l.Attrs()
		if !strings.HasPrefix(attrs.Alias, linkMark) || slices.ContainsFunc(n.cfg.Net.Interfaces, func(c object.Interface) bool {
			return c.Name == attrs.Name && markOf(c) == attrs.Alias
		}) {
			continue
		}
		// A VLAN goes with the link that carries it.
		if err := netlink.LinkDel(l); err != nil && !isGone(err) {
			return fmt.Errorf("remove link %s: %w", attrs.Name, err)
		}
		n.log.Info("link removed", "link", attrs.Name)
	}
	return nil
}

func isGone(err error) bool {
	return errors.As(err, &netlink.LinkNotFoundError{}) || errors.Is(err, unix.ENODEV)
}

// createConfigured creates the bonds and VLANs of the configuration as far as the
// links below them are there. What is created already stays as it is.
func (n *Node) createConfigured() {
	for _, config := range n.cfg.Net.Interfaces {
		if config.Bond != nil {
			n.report(config.Name, n.createBond(config))
		}
	}
	for _, config := range n.cfg.Net.Interfaces {
		if config.VLAN != nil {
			n.report(config.Name, n.createVLAN(config))
		}
	}
}

// report logs an error of a link once for as long as it stays the same.
func (n *Node) report(name string, err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if n.creating[name] != text && err != nil {
		n.log.Warn("create link", "link", name, "error", err)
	}
	n.creating[name] = text
}

func (n *Node) createBond(config object.Interface) error {
	bond := netlink.NewLinkBond(netlink.LinkAttrs{Name: config.Name})
	bond.Mode = netlink.StringToBondMode(string(config.Bond.Mode))
	if config.Bond.Mode == "" {
		bond.Mode = netlink.BOND_MODE_ACTIVE_BACKUP
	}
	bond.Miimon = monitorInterval
	if config.Bond.LACPRate == object.LACPFast {
		bond.LacpRate = netlink.BOND_LACP_RATE_FAST
	}
	link, err := create(config, bond)
	if err != nil {
		return err
	}
	errs := []error{release(link, config.Bond.Interfaces)}
	for _, name := range config.Bond.Interfaces {
		errs = append(errs, join(name, link))
	}
	return errors.Join(errs...)
}

// release takes devices out of a bond that are not in wanted.
func release(bond netlink.Link, wanted []string) error {
	links, err := netlink.LinkList()
	if err != nil {
		return explain(err, "netlink", "list links")
	}
	for _, l := range links {
		attrs := l.Attrs()
		if attrs.MasterIndex != bond.Attrs().Index || slices.Contains(wanted, attrs.Name) {
			continue
		}
		if err := netlink.LinkSetNoMaster(l); err != nil && !isGone(err) {
			return fmt.Errorf("take %s out of %s: %w", attrs.Name, bond.Attrs().Name, err)
		}
	}
	return nil
}

// join makes a device part of a bond. One that is not there is waited for.
func join(name string, bond netlink.Link) error {
	device, err := netlink.LinkByName(name)
	if err != nil {
		if isGone(err) {
			return nil
		}
		return fmt.Errorf("look at %s: %w", name, err)
	}
	if device.Attrs().MasterIndex == bond.Attrs().Index {
		return nil
	}
	if err := keepOnly(device, nil); err != nil {
		return err
	}
	if err := netlink.LinkSetDown(device); err != nil { // the driver takes no link that is up
		return explain(err, "netlink", "bring down "+name)
	}
	if err := netlink.LinkSetMaster(device, bond); err != nil {
		return fmt.Errorf("add %s to %s: %w", name, bond.Attrs().Name, err)
	}
	return nil
}

func (n *Node) createVLAN(config object.Interface) error {
	below, err := netlink.LinkByName(config.VLAN.Link)
	if err != nil {
		if isGone(err) {
			return nil // waited for
		}
		return fmt.Errorf("look at %s: %w", config.VLAN.Link, err)
	}
	if below.Attrs().Flags&net.FlagUp == 0 {
		if err := netlink.LinkSetUp(below); err != nil {
			return explain(err, "netlink", "bring up "+config.VLAN.Link)
		}
	}
	_, err = create(config, &netlink.Vlan{LinkAttrs: netlink.LinkAttrs{Name: config.Name, ParentIndex: below.Attrs().Index}, VlanId: config.VLAN.ID})
	return err
}

// create creates a link unless it is there already.
func create(config object.Interface, wanted netlink.Link) (netlink.Link, error) {
	present, err := netlink.LinkByName(config.Name)
	switch {
	case err == nil && present.Attrs().Alias == markOf(config):
		return present, nil
	case err == nil && present.Attrs().Alias == "" && present.Type() == wanted.Type():
		// The power was cut, or the daemon killed, before it was marked.
		if err := netlink.LinkDel(present); err != nil {
			return nil, fmt.Errorf("remove link %s: %w", config.Name, err)
		}
	case err == nil:
		return nil, fmt.Errorf("%s exists already and was not created by this node (%s): give it another name", config.Name, present.Type())
	case !isGone(err):
		return nil, fmt.Errorf("look at %s: %w", config.Name, err)
	}
	if err := netlink.LinkAdd(wanted); err != nil {
		return nil, explain(err, "netlink", fmt.Sprintf("create the %s %s", wanted.Type(), config.Name))
	}
	created, err := netlink.LinkByName(config.Name)
	if err != nil {
		return nil, fmt.Errorf("look at %s: %w", config.Name, err)
	}
	if err := netlink.LinkSetAlias(created, markOf(config)); err != nil {
		return nil, errors.Join(fmt.Errorf("mark %s as the node's: %w", config.Name, err), netlink.LinkDel(created))
	}
	return created, nil
}

// carries reports that links which the node creates are on top of the named one.
func (n *Node) carries(name string) bool {
	return slices.ContainsFunc(n.cfg.Net.Interfaces, func(c object.Interface) bool {
		return c.VLAN != nil && c.VLAN.Link == name || c.Bond != nil && slices.Contains(c.Bond.Interfaces, name)
	})
}
