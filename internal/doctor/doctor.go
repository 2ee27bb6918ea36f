package doctor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// Capability is one thing that a machine can or cannot do.
type Capability struct {
	Name      string `json:"name"`
	Available bool   `json:"available"`
	Detail    string `json:"detail"`           // what was found, or why it is not available
	NeededFor string `json:"neededFor"`        // what of Oscine depends on it
	Remedy    string `json:"remedy,omitempty"` // how to get it; empty where it is available
	Tool      bool   `json:"tool,omitempty"`   // needed to build images and run local machines, not by a node
}

// probe is one question. It returns what it found, or an error that says why
// the capability is missing.
type probe struct {
	name      string
	neededFor string
	remedy    string
	try       func(p *prober) (string, error)
}

// prober is what probes may use.
type prober struct {
	ctx  context.Context
	root string // of proc, sys and dev
}

// Run tries every capability that a node has a use for. The files of the
// kernel are read below root; where root is not /, what can only be tried on
// the running kernel is left out. It needs root for full answers, and says in
// the detail where a right was missing. It takes well under a second.
func Run(ctx context.Context, root string) []Capability {
	return run(&prober{ctx, root}, nodeProbes(root == "/" || root == ""), false)
}

// Tools tries what building images and running local machines needs of this
// computer.
func Tools(ctx context.Context) []Capability {
	return run(&prober{ctx, "/"}, toolProbes(), true)
}

func run(p *prober, probes []probe, tool bool) []Capability {
	var found []Capability
	for _, q := range probes {
		if p.ctx.Err() != nil {
			break
		}
		c := Capability{Name: q.name, NeededFor: q.neededFor, Tool: tool}
		detail, err := q.try(p)
		c.Available, c.Detail = err == nil, detail
		if err != nil {
			c.Detail, c.Remedy = err.Error(), q.remedy
			if errors.Is(err, fs.ErrPermission) && os.Geteuid() != 0 {
				c.Remedy = "run this as root: nobody else can try it"
			}
		}
		found = append(found, c)
	}
	return found
}

// read returns a small file of the kernel without its last newline.
func (p *prober) read(path string) (string, error) {
	const limit = 64 << 10
	f, err := os.Open(filepath.Join(p.root, path))
	if err != nil {
		return "", err
	}
	defer f.Close()
	buf := make([]byte, limit)
	n, err := f.Read(buf)
	if n == 0 && err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	return strings.TrimSpace(string(buf[:n])), nil
}

func (p *prober) exists(path string) bool {
	_, err := os.Stat(filepath.Join(p.root, path))
	return err == nil
}

// onOwnThread runs f on a thread that dies afterwards, so that namespaces and
// scheduling policies tried there are gone with it.
func onOwnThread(f func() (string, error)) (string, error) {
	type answer struct {
		detail string
		err    error
	}
	done := make(chan answer, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		detail, err := f()
		done <- answer{detail, err}
	}()
	a := <-done
	return a.detail, a.err
}

// Missing are the capabilities that are not available.
func Missing(all []Capability) []Capability {
	var missing []Capability
	for _, c := range all {
		if !c.Available {
			missing = append(missing, c)
		}
	}
	return missing
}

// String is one line for a log.
func (c Capability) String() string {
	if c.Available {
		return fmt.Sprintf("%s: %s", c.Name, c.Detail)
	}
	return fmt.Sprintf("%s is missing (%s), needed for %s: %s", c.Name, c.Detail, c.NeededFor, c.Remedy)
}
