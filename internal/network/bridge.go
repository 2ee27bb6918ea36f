package network

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/pattern"
)

// DefaultDir is where a node keeps the namespaces of its workloads.
const DefaultDir = "/run/oscine"

// bridgeName is the link that all workloads hang on.
const bridgeName = "oscine0"

// Bridge is the network of the workloads: IPv4, private, behind the node's
// addresses. Workloads reach the outside and the node, never each other but
// through a published port. It is safe for concurrent use.
type Bridge struct {
	dir string // holds netns/ and forwarding
	log *slog.Logger

	mu       sync.Mutex
	subnet   netip.Prefix // zero until the bridge exists
	ports    map[string][]object.Port
	closed   []int           // TCP ports of the node that workloads may not reach
	admitted map[string]bool // workloads that may
	reserved reservations
}

// Close keeps workloads from TCP ports of the node itself, such as its API's,
// except for those that Admit names. It takes effect with the next change.
func (b *Bridge) Close(ports ...int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = slices.Clone(ports)
}

// Admit says whether the workload id may reach the ports that Close names. It
// is called before Attach; Detach forgets it.
func (b *Bridge) Admit(id string, admitted bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if admitted {
		b.admitted[id] = true
	} else {
		delete(b.admitted, id)
	}
}

// NewBridge prepares the workload network whose namespaces lie under
// dir/netns; dir is DefaultDir but in tests. Nothing is changed before the
// first Attach or Reconcile.
func NewBridge(dir string, log *slog.Logger) *Bridge {
	return &Bridge{dir: dir, log: log, ports: map[string][]object.Port{}, admitted: map[string]bool{}, reserved: reservations{}}
}

var idRE = pattern.New(`^[a-z0-9][a-z0-9.-]{0,119}$`)

// Attach gives the workload id a network namespace with an address and
// publishes its ports on the node. It returns the path of the namespace, fit
// for the container runtime, and the workload's address. Calling it again
// changes the ports and repairs what is missing; namespace and address stay.
//
// It returns a *PortTakenError when a port has another holder and an
// *UnsupportedError when the kernel lacks a part that it needs. After an error
// nothing of id remains that was not there before.
func (b *Bridge) Attach(ctx context.Context, id string, ports []object.Port) (string, netip.Addr, error) {
	if !idRE.MatchString(id) {
		return "", netip.Addr{}, fmt.Errorf("attach workload network: %q is not a workload id", id)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.claim(id, ports); err != nil {
		return "", netip.Addr{}, fmt.Errorf("attach network of %s: %w", id, err)
	}
	_, statErr := os.Stat(b.namespace(id))
	fresh := statErr != nil
	addr, err := b.attach(ctx, id)
	if err == nil {
		err = b.sync()
	}
	if err != nil {
		if fresh {
			b.forget(id)
			err = errors.Join(err, b.remove(id))
		}
		return "", netip.Addr{}, fmt.Errorf("attach network of %s: %w", id, err)
	}
	return b.namespace(id), addr, nil
}

// Detach withdraws the ports of id and removes its namespace. A workload that
// has none is no error.
func (b *Bridge) Detach(id string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !idRE.MatchString(id) {
		return fmt.Errorf("detach workload network: %q is not a workload id", id)
	}
	b.forget(id)
	if err := b.remove(id); err != nil {
		return fmt.Errorf("detach network of %s: %w", id, err)
	}
	if err := b.sync(); err != nil {
		return fmt.Errorf("detach network of %s: %w", id, err)
	}
	return nil
}

// Reconcile makes the network equal to active, which names every workload
// that should have one with its ports: it removes the others, repairs links
// of namespaces that exist and rewrites the firewall. It is cheap enough to
// run at every pass of the node, and must run once after a restart of the
// daemon. It goes on after an error and returns all of them.
func (b *Bridge) Reconcile(ctx context.Context, active map[string][]object.Port) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	var errs []error
	existing, err := b.existing()
	if err != nil {
		return fmt.Errorf("reconcile workload network: %w", err)
	}
	for _, id := range existing {
		if _, wanted := active[id]; !wanted {
			b.forget(id)
			if err := b.remove(id); err != nil {
				errs = append(errs, fmt.Errorf("remove network of %s: %w", id, err))
			}
		}
	}
	for _, id := range slices.Sorted(maps.Keys(b.ports)) {
		if _, wanted := active[id]; !wanted {
			b.forget(id)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(active)) {
		if !slices.Contains(existing, id) {
			continue // its namespace comes with Attach, before its process
		}
		if err := b.claim(id, active[id]); err != nil {
			errs = append(errs, fmt.Errorf("publish ports of %s: %w", id, err))
		}
		if _, err := b.attach(ctx, id); err != nil {
			errs = append(errs, fmt.Errorf("repair network of %s: %w", id, err))
		}
	}
	if err := b.sync(); err != nil {
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("reconcile workload network: %w", err)
	}
	return nil
}

// Subnet is the workloads' subnet; the zero Prefix before the first workload.
func (b *Bridge) Subnet() netip.Prefix {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.subnet
}

func (b *Bridge) namespace(id string) string { return filepath.Join(b.dir, "netns", id) }

// existing lists the workloads that have a namespace, complete or not.
func (b *Bridge) existing() ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(b.dir, "netns"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, e := range entries {
		if idRE.MatchString(e.Name()) {
			ids = append(ids, e.Name())
		}
	}
	return ids, nil
}

// attach makes namespace, veth pair and address of id, each only where it is
// missing.
func (b *Bridge) attach(ctx context.Context, id string) (netip.Addr, error) {
	if err := ctx.Err(); err != nil {
		return netip.Addr{}, err
	}
	if err := b.ensureBridge(); err != nil {
		return netip.Addr{}, err
	}
	if err := ensureNamespace(b.namespace(id)); err != nil {
		return netip.Addr{}, err
	}
	return b.ensureVeth(id)
}

// remove takes away all of id but its claims.
func (b *Bridge) remove(id string) error {
	return errors.Join(removeVeth(id), removeNamespace(b.namespace(id)))
}

// sync writes sysctls and firewall for what exists now.
func (b *Bridge) sync() error {
	attached, err := attachedWorkloads()
	if err != nil {
		return err
	}
	if !b.subnet.IsValid() {
		if subnet, ok := bridgeSubnet(); ok {
			b.subnet = subnet
		} else {
			return nil // no bridge, no workloads: nothing to guard
		}
	}
	guarded, err := b.forward(len(attached) > 0)
	if err != nil {
		return err
	}
	rules := ruleset{subnet: b.subnet, guarded: guarded, closed: b.closed}
	for id, addr := range attached {
		if b.admitted[id] {
			rules.admitted = append(rules.admitted, addr)
		}
		for _, p := range b.ports[id] {
			rules.published = append(rules.published, publication{port: p, addr: addr})
		}
	}
	return rules.apply()
}
