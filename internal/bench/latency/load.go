package latency

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
	"oscine.dev/oscine/internal/linux"
)

// Load says what keeps the machine busy.
type Load struct {
	Kinds   []string         `json:"kinds"`         // of LoadKinds, spread over the threads
	Threads int              `json:"threads"`       // 0 is two for each CPU
	Policy  linux.Scheduling `json:"policy"`        // which the threads give themselves
	CPU     int              `json:"cpu,omitempty"` // 1 + the one CPU to stay on; 0: where the kernel likes
	// Duration ends the load by itself: a real-time spinner may leave its own
	// process no time to hear of an end. 0: until told.
	Duration time.Duration `json:"duration,omitempty"`
}

// LoadKinds lists the loads: cpu computes, syscall lives in the kernel, memory
// maps, touches and drops pages, thp does so with huge pages, file writes and
// drops a file in /tmp.
func LoadKinds() []string { return []string{"cpu", "syscall", "memory", "thp", "file"} }

// CheckLoad reports a kind that does not exist.
func CheckLoad(kinds []string) error {
	for _, k := range kinds {
		if !slices.Contains(LoadKinds(), k) {
			return fmt.Errorf("there is no load %q: choose of %s", k, strings.Join(LoadKinds(), ", "))
		}
	}
	return nil
}

// LoadReport is what a load achieved.
type LoadReport struct {
	Units   uint64        `json:"units"`   // of work, comparable between loads of the same kinds
	CPUTime time.Duration `json:"cpuTime"` // of all threads
	Elapsed time.Duration `json:"elapsed"`
}

// Rate is the work done in a second.
func (r *LoadReport) Rate() float64 {
	if r.Elapsed <= 0 {
		return 0
	}
	return float64(r.Units) / r.Elapsed.Seconds()
}

// run works until stop becomes true.
func (l Load) run(stop *atomic.Bool) (*LoadReport, error) {
	threads := l.Threads
	if threads <= 0 {
		threads = 2 * runtime.NumCPU()
	}
	kinds := l.Kinds
	if len(kinds) == 0 {
		kinds = []string{"cpu"}
	}
	if err := CheckLoad(kinds); err != nil {
		return nil, err
	}
	runtime.GOMAXPROCS(threads + 2)
	// Where memory ends, the load is the first to go and not who is measured.
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte("1000"), 0) // without it too there is a measurement
	var (
		wg     sync.WaitGroup
		mu     sync.Mutex
		report LoadReport
		failed error
	)
	began := linux.Monotonic()
	for i := range threads {
		wg.Go(func() {
			units, used, err := l.thread(kinds[i%len(kinds)], stop)
			mu.Lock()
			defer mu.Unlock()
			report.Units += units
			report.CPUTime += used
			if err != nil {
				failed = err
			}
		})
	}
	wg.Wait()
	report.Elapsed = time.Duration(linux.Monotonic() - began)
	return &report, failed
}

func (l Load) thread(kind string, stop *atomic.Bool) (units uint64, used time.Duration, err error) {
	runtime.LockOSThread() // and never unlock: the thread ends with its goroutine
	before := linux.ThreadCPUTime()
	if l.Policy != (linux.Scheduling{}) {
		if err := linux.SetScheduling(0, l.Policy); err != nil {
			return 0, 0, err
		}
	}
	if l.CPU > 0 {
		var set unix.CPUSet
		set.Set(l.CPU - 1)
		if err := unix.SchedSetaffinity(0, &set); err != nil {
			return 0, 0, err
		}
	}
	work, done, err := newWork(kind)
	if err != nil {
		return 0, 0, err
	}
	defer done()
	end := linux.Monotonic() + int64(l.Duration)
	for !stop.Load() && (l.Duration == 0 || linux.Monotonic() < end) {
		if err := work(); err != nil {
			return units, 0, fmt.Errorf("%s load: %w", kind, err)
		}
		units++
	}
	return units, linux.ThreadCPUTime() - before, nil
}

// newWork returns one unit of work, some 10 to 500 microseconds of it.
func newWork(kind string) (work func() error, done func(), err error) {
	done = func() {}
	switch kind {
	case "syscall":
		return func() error {
			for range 50 {
				_ = unix.Getppid()
			}
			return nil
		}, done, nil
	case "memory", "thp":
		return func() error { return churn(kind == "thp") }, done, nil
	case "file":
		f, err := os.CreateTemp("", "load")
		if err != nil {
			return nil, done, err
		}
		if err := os.Remove(f.Name()); err != nil { // it goes with its process, however that ends
			return nil, done, err
		}
		page := make([]byte, 64<<10)
		size := 0
		return func() error {
			if size += len(page); size > 32<<20 {
				size = 0
				return f.Truncate(0)
			}
			_, err := f.WriteAt(page, int64(size))
			return err
		}, func() { _ = f.Close() }, nil
	}
	var x uint64 = 1
	return func() error { x = burn(x, 10_000); return nil }, done, nil
}

// burn computes n steps that the compiler cannot leave out.
//
//go:nosplit
func burn(x uint64, n int) uint64 {
	for range n {
		x = x*6364136223846793005 + 1442695040888963407
	}
	return x
}

// Spend uses processor time on the calling thread, and gives the Go runtime no
// occasion to take the thread away meanwhile.
//
//go:nosplit
func Spend(d time.Duration) {
	var x uint64 = 1
	for end := linux.ThreadCPUTime() + d; linux.ThreadCPUTime() < end; {
		x = burn(x, 1000)
	}
}

// churn maps memory, touches every page and drops it.
func churn(huge bool) error {
	size := 1 << 20
	if huge {
		size = 8 << 20
	}
	data, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return err
	}
	if huge {
		_ = unix.Madvise(data, unix.MADV_HUGEPAGE) // a kernel without huge pages churns small ones
	}
	for i := 0; i < size; i += 4096 {
		data[i] = 1
	}
	return unix.Munmap(data)
}
