package machinetest

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"oscine.dev/oscine/internal/durable"
	"oscine.dev/oscine/internal/machine"
)

// Bounds of the saved machines in the cache, over all trees and test programs.
const (
	// SavedFor is how old a saved machine may be. Its clock lags by as much, so
	// this must stay below what certificates are dated back.
	SavedFor  = 12 * time.Hour
	savedMost = 8       // machines
	savedSize = 6 << 30 // bytes on the disk
)

// Booted is a machine that tests resume. It is booted once for its options, its
// image and its key, and saved.
type Booted struct {
	// Options are those of Start, without Config and StateDir.
	Options machine.Options
	// Key names what Prepare and Ready do: a saved machine of another key is
	// not taken.
	Key string
	// Prepare makes the configuration to boot with, and in dir what tests need
	// to speak to the machine.
	Prepare func(dir string) (config []byte)
	// Ready brings the booted machine to where tests find it.
	Ready func(m *Machine, dir string)
}

// Resume gives the test a machine that goes on from where it was saved, and a
// folder of the test's own with what Prepare and Ready left in theirs. The
// machine ends with the test; nothing that a test does to it is seen by another.
// Its ports on this computer, see Addr, differ from those of the boot.
func Resume(t testing.TB, b Booted) (m *Machine, dir string) {
	t.Helper()
	Need(t)
	b.Options = filled(t, b.Options)
	saved := b.saved(t)
	dir = t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(saved, filesFolder))); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(takePlace(t))
	began := time.Now()
	resumed, err := machine.Resume(t.Context(), filepath.Join(saved, machineFolder), machine.Options{
		StateDir: t.TempDir(), Name: b.Options.Name, Ports: b.Options.Ports, Tied: true,
	})
	if err != nil {
		t.Fatalf("%v (saved in %s: remove it to boot again)", err, saved)
	}
	t.Logf("resumed a machine in %s", time.Since(began).Round(10*time.Millisecond))
	return own(t, resumed), dir
}

// What a saved machine's folder in the cache holds.
const (
	machineFolder = "machine" // what Save made
	filesFolder   = "files"   // what Prepare and Ready made
	useFile       = "use"     // locked while a test uses it
	unfinished    = "unfinished-"
)

// saved returns the folder of the saved machine, which stays until the test is
// over. Where there is none, it boots one.
func (b Booted) saved(t testing.TB) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	fingerprint, err := machine.Fingerprint(ctx, b.Options)
	if err != nil {
		t.Fatal(err)
	}
	cache, err := cacheDir()
	if err != nil {
		t.Fatal(err)
	}
	all := filepath.Join(cache, "saved")
	if err := os.MkdirAll(all, 0o700); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(all, fmt.Sprintf("%s-%.8x-%d", fingerprint, sha256.Sum256([]byte(b.Key)), time.Now().Unix()/int64(SavedFor.Seconds())))
	for {
		if release := use(dir); release != nil {
			t.Cleanup(release)
			return dir
		}
		b.boot(t, all, dir)
	}
}

// use keeps the saved machine in dir from being removed. It returns nil where
// there is none.
func use(dir string) (release func()) {
	release, err := lock(filepath.Join(dir, useFile), unix.LOCK_SH)
	if err != nil {
		return nil
	}
	if _, err := os.Stat(dir); err != nil { // removed before it was locked
		release()
		return nil
	}
	return release
}

// boot boots the machine and saves it in dir, unless another test program did
// so meanwhile. One machine is booted at a time.
func (b Booted) boot(t testing.TB, all, dir string) {
	t.Helper()
	unlock, err := lock(all+".lock", unix.LOCK_EX)
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	sweep(all)
	if release := use(dir); release != nil {
		release()
		return
	}
	began := time.Now()
	making, err := os.MkdirTemp(all, unfinished)
	if err != nil {
		t.Fatal(err)
	}
	files := filepath.Join(making, filesFolder)
	if err := errors.Join(os.Mkdir(files, 0o700), os.WriteFile(filepath.Join(making, useFile), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	o := b.Options
	o.StateDir, o.Config = making, b.Prepare(files)
	release := takePlace(t)
	defer release()
	booted, err := machine.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	m := own(t, booted)
	b.Ready(m, files)
	cpu, err := m.CPUTime()
	if err == nil {
		err = booted.Save(t.Context(), filepath.Join(making, machineFolder))
	}
	if err == nil {
		err = durable.ReplaceTree(making, dir)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("booted and saved a machine in %s, %.1f s of processor time", time.Since(began).Round(100*time.Millisecond), cpu.Seconds())
}

// sweep removes saved machines that were not finished, are too old, or are more
// than the bounds, oldest first. One in use stays. The caller holds the lock of
// all.
func sweep(all string) {
	entries, err := os.ReadDir(all)
	if err != nil {
		return
	}
	type entry struct {
		dir  string
		made time.Time
		size int64
	}
	var kept []entry
	for _, e := range entries {
		dir := filepath.Join(all, e.Name())
		info, err := e.Info()
		if err != nil {
			continue
		}
		if unfinishedName(e.Name()) || time.Since(info.ModTime()) > SavedFor {
			remove(dir)
			continue
		}
		kept = append(kept, entry{dir, info.ModTime(), diskUsage(dir)})
	}
	slices.SortFunc(kept, func(a, b entry) int { return b.made.Compare(a.made) })
	var size int64
	for i, e := range kept {
		// One more is about to be made.
		if size += e.size; i >= savedMost-1 || size > savedSize {
			remove(e.dir)
		}
	}
}

func unfinishedName(name string) bool {
	return len(name) > len(unfinished) && name[:len(unfinished)] == unfinished
}

// remove removes a saved machine that no test uses.
func remove(dir string) {
	if unlock, err := lock(filepath.Join(dir, useFile), unix.LOCK_EX|unix.LOCK_NB); err == nil {
		defer unlock()
	} else if errors.Is(err, unix.EWOULDBLOCK) {
		return
	}
	_ = os.RemoveAll(dir) // what stays costs disk space only, until the next try
}

// diskUsage adds up the blocks of the files below dir.
func diskUsage(dir string) (size int64) {
	_ = filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		var st unix.Stat_t
		if err == nil && unix.Lstat(name, &st) == nil {
			size += st.Blocks * 512
		}
		return nil
	})
	return size
}
