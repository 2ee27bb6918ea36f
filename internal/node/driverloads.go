package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sync"
	"time"

	"oscine.dev/oscine/internal/durable"
)

const (
	driverLoadsFile = "drivers-loading.json"

	// driverProof is how long a machine runs on after a driver was loaded and its program
	// asked before the driver counts as one that does not crash the kernel.
	driverProof = time.Minute

	// driverCrashes is how many restarts in a row have a driver left out: a power failure
	// looks the same, and after three the machine takes its other version.
	driverCrashes = 2
)

// driverLoads notes on the disk which packs' drivers are being loaded. A driver that
// crashes the kernel would do so at each start, in both versions of Oscine: it is left
// out after driverCrashes. It is safe for concurrent use.
type driverLoads struct {
	file string
	boot string // names this start of the machine
	now  func() time.Time

	mu     sync.Mutex
	boots  map[string][]string  // by digest, starts of the machine of which no proof was seen; as in file
	ended  map[string]time.Time // by digest, when the first load in this process ended
	proven map[string]bool      // by digest
}

// openDriverLoads reads the file. If that is an error, nothing counts as noted.
func openDriverLoads(file, boot string) (*driverLoads, error) {
	l := &driverLoads{file: file, boot: boot, now: time.Now, boots: map[string][]string{}, ended: map[string]time.Time{}, proven: map[string]bool{}}
	raw, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return l, nil
	}
	if err == nil {
		err = json.Unmarshal(raw, &l.boots)
	}
	if err != nil || l.boots == nil {
		l.boots = map[string][]string{}
	}
	return l, err
}

func (l *driverLoads) write() error {
	raw, err := json.Marshal(l.boots)
	if err != nil {
		return fmt.Errorf("note which drivers are loaded: %w", err)
	}
	return durable.WriteFile(l.file, raw, 0o600)
}

// crashes reports whether the machine restarted too often while it loaded the driver.
func (l *driverLoads) crashes(digest string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := len(l.boots[digest])
	if slices.Contains(l.boots[digest], l.boot) {
		n--
	}
	return n >= driverCrashes
}

// begin notes that a driver is loaded now, before it is.
func (l *driverLoads) begin(digest string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.proven[digest] || slices.Contains(l.boots[digest], l.boot) {
		return nil
	}
	l.boots[digest] = append(l.boots[digest], l.boot)
	return l.write()
}

// end notes that loading has ended, and once driverProof has passed since, that the
// machine goes on running.
func (l *driverLoads) end(digest string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended[digest].IsZero() {
		l.ended[digest] = l.now()
	}
	if l.proven[digest] || l.now().Sub(l.ended[digest]) < driverProof {
		return nil
	}
	l.proven[digest] = true
	delete(l.boots, digest)
	return l.write()
}

// forget has a driver loaded again, whatever happened before: its pack was installed again
// or removed.
func (l *driverLoads) forget(digest string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.ended, digest)
	delete(l.proven, digest)
	if l.boots[digest] == nil {
		return nil
	}
	delete(l.boots, digest)
	return l.write()
}

// close takes back what was noted of this start: the machine, or only the daemon, stops
// in good order.
func (l *driverLoads) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	changed := false
	for digest, boots := range l.boots {
		if i := slices.Index(boots, l.boot); i >= 0 && !l.ended[digest].IsZero() {
			changed = true
			if l.boots[digest] = slices.Delete(boots, i, i+1); len(l.boots[digest]) == 0 {
				delete(l.boots, digest)
			}
		}
	}
	if !changed {
		return nil
	}
	return l.write()
}
