package region

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/containerd/errdefs"
	"golang.org/x/sync/semaphore"
	"golang.org/x/sys/unix"

	"oscine.dev/oscine/internal/linux"
)

// Bounds of what clients hand over.
const (
	MaxName    = 256       // bytes of a region's name and key
	MaxRegions = 16        // of one connection
	MaxBytes   = 256 << 20 // of all regions of one connection
	maxAll     = 1024      // regions of all connections
)

// needSeals are those of every memfd. Without F_SEAL_GROW a client could have the
// daemon append, beyond the region, and without F_SEAL_SEAL it could forbid the daemon
// to free what it wrote.
const needSeals = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_SEAL

// ErrInvalid is wrapped by errors that are the client's fault.
var ErrInvalid = errdefs.ErrInvalidArgument.WithMessage("shared memory")

// ErrFull means that other connections have all the room for regions.
var ErrFull = errdefs.ErrResourceExhausted.WithMessage("too much shared memory of clients")

// Room bounds the regions of all connections: memory that the daemon writes first
// counts as its own.
type Room struct {
	bytes, regions *semaphore.Weighted
}

// NewRoom has room for regions of so many bytes in all.
func NewRoom(bytes int64) *Room {
	return &Room{semaphore.NewWeighted(bytes), semaphore.NewWeighted(maxAll)}
}

func (r *Room) take(bytes int64) bool {
	if !r.regions.TryAcquire(1) {
		return false
	}
	if !r.bytes.TryAcquire(bytes) {
		r.regions.Release(1)
		return false
	}
	return true
}

func (r *Room) give(bytes int64) {
	r.bytes.Release(bytes)
	r.regions.Release(1)
}

// Status describes a region.
type Status struct {
	Name, Key    string
	Offset, Size uint64
}

// Regions are those of one connection. They are safe for concurrent use.
type Regions struct {
	room *Room

	mu      sync.RWMutex
	closed  bool
	offered int // the descriptor that came last; -1: none
	list    []region
	bytes   int64
}

type region struct {
	Status
	fd int
}

// New returns the regions of a connection. Close gives them back.
func New(room *Room) *Regions { return &Regions{room: room, offered: -1} }

type contextKey struct{}

// With returns the context of a connection's requests.
func With(ctx context.Context, r *Regions) context.Context {
	return context.WithValue(ctx, contextKey{}, r)
}

// Of returns the regions of the connection on which a request came; nil where it
// can have none.
func Of(ctx context.Context) *Regions {
	r, _ := ctx.Value(contextKey{}).(*Regions)
	return r
}

// Offer takes over a descriptor that came with a request, for Register. It replaces
// one that was not registered. What is no memfd is closed at once, by the caller's
// goroutine: it may take as long as its client likes, such as a socket that lingers.
func (r *Regions) Offer(fd int) {
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0); err != nil {
		_ = unix.Close(fd)
		fd = -1
	}
	r.mu.Lock()
	last := r.offered
	r.offered = fd
	if r.closed {
		r.offered, last = -1, fd
	}
	r.mu.Unlock()
	discard(last)
}

// discard closes a memfd.
func discard(fd int) {
	if fd >= 0 {
		_ = unix.Close(fd)
	}
}

// Register names size bytes from offset on of the memfd that was offered. Its seals
// are checked: what was checked once stays true.
func (r *Regions) Register(s Status) error {
	r.mu.Lock()
	fd := r.offered
	r.offered = -1
	err := r.register(fd, s)
	r.mu.Unlock()
	if err != nil {
		discard(fd)
	}
	return err
}

func (r *Regions) register(fd int, s Status) error {
	switch {
	case r.closed || fd < 0:
		return fmt.Errorf("%w: no memfd came with the request: send its descriptor with it (SCM_RIGHTS)", ErrInvalid)
	case s.Name == "" || len(s.Name) > MaxName || len(s.Key) > MaxName:
		return fmt.Errorf("%w: a region's name has 1 to %d bytes", ErrInvalid, MaxName)
	case r.find(s.Name) != nil:
		return fmt.Errorf("%w: region %q is registered already: unregister it first", ErrInvalid, s.Name)
	case len(r.list) == MaxRegions:
		return fmt.Errorf("%w: a connection has at most %d regions", ErrInvalid, MaxRegions)
	case s.Size == 0 || s.Size > uint64(MaxBytes-r.bytes):
		return fmt.Errorf("%w: region %q of %d bytes: a connection has at most %d in all", ErrInvalid, s.Name, s.Size, MaxBytes)
	}
	seals, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0)
	if err != nil {
		return fmt.Errorf("seals of region %q: %w", s.Name, err)
	}
	if seals&needSeals != needSeals {
		return fmt.Errorf("%w: region %q: seal its size first (F_ADD_SEALS with F_SEAL_SHRINK, F_SEAL_GROW and F_SEAL_SEAL)", ErrInvalid, s.Name)
	}
	if seals&(unix.F_SEAL_WRITE|unix.F_SEAL_FUTURE_WRITE) != 0 {
		return fmt.Errorf("%w: region %q is sealed against writing: the daemon could not free its pages; hand over a memfd without F_SEAL_WRITE and F_SEAL_FUTURE_WRITE", ErrInvalid, s.Name)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	// The bound leaves room for free to round up.
	if size := min(uint64(max(st.Size, 0)), 1<<62); s.Offset > size || s.Size > size-s.Offset {
		return fmt.Errorf("%w: region %q: %d bytes from %d on, the memfd has %d", ErrInvalid, s.Name, s.Size, s.Offset, size)
	}
	if !r.room.take(int64(s.Size)) {
		return fmt.Errorf("%w: send the tensors with the request, or register later", ErrFull)
	}
	r.bytes += int64(s.Size)
	s.Name, s.Key = strings.Clone(s.Name), strings.Clone(s.Key)
	r.list = append(r.list, region{s, fd})
	return nil
}

// find returns a region or nil. The caller holds mu.
func (r *Regions) find(name string) *region {
	for i := range r.list {
		if r.list[i].Name == name {
			return &r.list[i]
		}
	}
	return nil
}

// Unregister frees the pages of a region, or of all where name is "", and forgets it.
// One that is not known is no error.
func (r *Regions) Unregister(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.unregister(name)
}

func (r *Regions) unregister(name string) {
	r.list = slices.DeleteFunc(r.list, func(g region) bool {
		if name != "" && g.Name != name {
			return false
		}
		g.free()
		r.bytes -= int64(g.Size)
		r.room.give(int64(g.Size))
		_ = unix.Close(g.fd)
		return true
	})
}

// free frees the pages in which a region lies. Those that the daemon wrote first count
// as its own, and would for as long as the client keeps the memfd.
func (g *region) free() {
	page := int64(os.Getpagesize())
	begin, end := int64(g.Offset)&-page, (int64(g.Offset+g.Size)+page-1)&-page
	for {
		// It fails for a descriptor that is read-only: nothing was written by it.
		if err := unix.Fallocate(g.fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, begin, end-begin); !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

// List describes the regions.
func (r *Regions) List() []Status {
	r.mu.RLock()
	defer r.mu.RUnlock()
	var list []Status
	for _, g := range r.list {
		list = append(list, g.Status)
	}
	return list
}

// Close forgets all, when the connection has ended.
func (r *Regions) Close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	r.unregister("")
	discard(r.offered)
	r.offered = -1
}

// Check returns nil where a region has size bytes from offset on.
func (r *Regions) Check(name string, offset, size int64) error {
	r.mu.RLock()
	defer r.mu.RUnlock()
	_, err := r.place(name, offset, size)
	return err
}

// place is where bytes of a region lie in its memfd. The caller holds mu.
func (r *Regions) place(name string, offset, size int64) (*region, error) {
	g := r.find(name)
	if g == nil {
		return nil, fmt.Errorf("%w: region %q is not registered on this connection", ErrInvalid, name)
	}
	if offset < 0 || size < 0 || uint64(offset) > g.Size || uint64(size) > g.Size-uint64(offset) {
		return nil, fmt.Errorf("%w: region %q has %d bytes, not %d from %d on", ErrInvalid, name, g.Size, size, offset)
	}
	return g, nil
}

// Read fills dst with what lies in a region from offset on.
func (r *Regions) Read(name string, offset int64, dst []byte) error {
	return r.move(name, offset, dst, read)
}

// readNow is up to how many bytes the runtime need not know that they are read.
const readNow = 8 << 10

// read is pread(2). Of a memfd it waits for no client: unlike a write, it takes no lock that
// one may hold for long. It may wait for a few pages that were swapped out.
func read(fd int, p []byte, offset int64) (int, error) {
	if len(p) > readNow {
		return unix.Pread(fd, p, offset)
	}
	return linux.ReadNow(fd, p, offset)
}

// Write puts src into a region from offset on.
func (r *Regions) Write(name string, offset int64, src []byte) error {
	return r.move(name, offset, src, unix.Pwrite)
}

func (r *Regions) move(name string, offset int64, b []byte, call func(int, []byte, int64) (int, error)) error {
	r.mu.RLock()
	defer r.mu.RUnlock()
	g, err := r.place(name, offset, int64(len(b)))
	if err != nil {
		return err
	}
	for at := int64(g.Offset) + offset; len(b) > 0; {
		n, err := call(g.fd, b, at)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err == nil && n == 0:
			err = io.ErrUnexpectedEOF
		}
		if err != nil { // such as a seal against writing
			return fmt.Errorf("%w: region %q: %w", ErrInvalid, name, err)
		}
		b, at = b[n:], at+int64(n)
	}
	return nil
}
