package boot

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"oscine.dev/oscine/internal/linux"
	"oscine.dev/oscine/internal/release"
)

// Mount points of stage 1 in the initramfs.
const (
	newRoot   = "/sysroot"
	newData   = "/data"
	stage1ESP = "/esp"
)

// stage1 finds the slot of this kernel's version, opens it through dm-verity,
// and hands over to PID 1 on it. It returns only with an error.
func stage1(log *Log) error {
	began := time.Now()
	v, err := readVerity()
	if err != nil {
		return err
	}
	log.Notice("stage 1 begins")
	m := openModules(log)
	enableModprobe(log, "/init")
	m.loadListed(log, release.ModulesFile)
	m.coldplug(log, "/sys")
	modulesDone := time.Now()
	log.Notice("%d modules in %d ms", m.count(), ms(began, modulesDone))
	armWatchdog(log)
	setPanicTimeout(log)
	from := bootedFrom(log)
	s, parts, err := waitSlot(log, m, v, from.espUUID)
	if err != nil {
		demoteDamaged(log, parts, from, err)
		return err
	}
	found := time.Now()
	data := findData(parts, s.Disk)
	if !data.encrypted {
		data.mountPlain(log, m, parts, s.Disk)
	}
	reset := !data.encrypted && beginData(log, parts, s.Disk, from, data)
	if err := countAttempt(log, parts, s, from, data.counter()); err != nil {
		return err
	}
	if err := openRoot(log, v, s); err != nil {
		return err
	}
	if data.encrypted { // what opens it is on the root
		data.open(log, m, from)
		reset = beginData(log, parts, s.Disk, from, data)
	}
	if reset {
		data = resetData(log, m, parts, s.Disk, data)
	}
	log.Notice("slot %s on %s (%s), root hash %.4x…; slot found in %d ms, mounted in %d ms",
		s.Name, s.Device, imageName(from), v.RootHash, ms(modulesDone, found), ms(found, time.Now()))
	return switchRoot(release.Facts{Slot: s.Name, Disk: s.Disk, Data: data.mounted.Device, Locked: data.locked, Image: from.image, Stage1: time.Since(began)})
}

func ms(from, to time.Time) int64 { return to.Sub(from).Milliseconds() }

func imageName(from booted) string {
	if from.image == "" {
		return "started directly, without a boot loader"
	}
	return path.Base(from.image)
}

func readVerity() (release.Verity, error) {
	commandLine, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return release.Verity{}, err
	}
	return release.FindVerity(string(commandLine))
}

// bootedFrom reads the boot loader's variables.
func bootedFrom(log *Log) booted {
	if _, err := os.Stat("/sys/firmware/efi"); err != nil {
		return booted{}
	}
	if err := (mount{"efivarfs", linux.EFIVariables, "efivarfs", linux.Hardened, ""}).do(); err != nil {
		log.Error("cannot tell which image was started: %v", err)
	}
	return readBooted(linux.EFIVariables)
}

// setPanicTimeout makes a kernel panic, such as a corrupt block of the root,
// restart the machine, so that the boot counter decides.
func setPanicTimeout(log *Log) {
	if err := os.WriteFile("/proc/sys/kernel/panic", []byte("5"), 0o644); err != nil {
		log.Error("a kernel panic will halt the machine: %v", err)
	}
}

// armWatchdog starts the countdown as early as a driver is there; a hang from
// here on resets the machine. PID 1 takes the device over.
func armWatchdog(log *Log) {
	w, _, err := linux.OpenWatchdog(watchdogDevice, watchdogTimeout)
	if err != nil {
		return // PID 1 says so once its drivers are loaded
	}
	if err := errors.Join(w.Pet(), w.Leave()); err != nil {
		log.Error("watchdog: %v", err)
	}
}

// countAttempt keeps the boot counter of an image that was marked good before.
// One that has used up its attempts is demoted; the error then is the reason to
// restart into what the boot loader takes next.
func countAttempt(log *Log, parts []linux.Partition, s slot, from booted, c *counter) error {
	if from.image == "" || from.entry.Counted || c == nil {
		return nil
	}
	n := c.attempts(from.image)
	if n < maxAttempts {
		if err := c.record(from.image, n+1); err != nil {
			log.Error("count this boot: %v", err)
		}
		return nil
	}
	if err := demote(parts, s.Disk, from, n); err != nil {
		log.Error("%s failed %d times, but it cannot be demoted: %v", from.image, n, err)
		return nil
	}
	if err := c.record(from.image, 0); err != nil {
		log.Error("forget the attempts of %s: %v", from.image, err)
	}
	return fmt.Errorf("%s (slot %s) was good once and failed %d times since; it is demoted", from.image, s.Name, n)
}

// demoteDamaged takes an image whose slot is damaged out of the boot order at
// once if it has no counter any more; one with a counter runs out by itself.
func demoteDamaged(log *Log, parts []linux.Partition, from booted, cause error) {
	if from.image == "" || from.entry.Counted || !errors.Is(cause, errNoSlot) {
		return
	}
	for _, p := range parts {
		if p.Name == release.PartitionESP && (p.UUID == from.espUUID || from.espUUID == "") {
			if err := demote(parts, p.Disk, from, 1); err != nil {
				log.Error("cannot demote %s: %v", from.image, err)
				continue
			}
			log.Error("%s is demoted: no slot holds its root", from.image)
			return
		}
	}
}

func demote(parts []linux.Partition, disk string, from booted, done int) error {
	esp, ok := linux.FindPartition(parts, disk, release.PartitionESP)
	if !ok {
		return fmt.Errorf("disk %s has no partition %s", disk, release.PartitionESP)
	}
	return linux.WithESP(esp, stage1ESP, 0, func(dir string) error {
		return renameImage(dir, from.image, from.entry.Demoted(done).File())
	})
}

// panicOnCorruption has a corrupt block panic, so that the boot counter of the slot
// goes down, instead of giving programs an I/O error that they may take for anything.
const panicOnCorruption = "panic_on_corruption"

// openRoot mounts the slot's root through dm-verity.
func openRoot(log *Log, v release.Verity, s slot) error {
	number, err := os.ReadFile(filepath.Join("/sys/class/block", s.Device, "dev"))
	if err != nil {
		return err
	}
	device := string(trimNewline(number))
	node, err := linux.CreateMapping("oscine-root", "verity", v.Table(device, s.hashStart, panicOnCorruption), v.Sectors())
	if err != nil {
		return err
	}
	if err := linux.SetReadAhead(node, rootReadAhead); err != nil {
		log.Error("read ahead of the root: %v", err)
	}
	return mount{node, newRoot, "erofs", unix.MS_RDONLY | unix.MS_NODEV, ""}.do()
}

// rootReadAhead is how much of a program is read, and each of its blocks checked,
// for one page that is missing. The kernel's 8 MiB read all of each program.
const rootReadAhead = 64 // KiB

func trimNewline(b []byte) []byte {
	for len(b) > 0 && b[len(b)-1] == '\n' {
		b = b[:len(b)-1]
	}
	return b
}

// switchRoot moves the mounts onto the new root, frees the initramfs and runs
// PID 1 (see switch_root(8)).
func switchRoot(facts release.Facts) error {
	for from, to := range map[string]string{"/dev": "/dev", "/proc": "/proc", "/sys": "/sys", newData: "/var"} {
		if err := unix.Mount(from, newRoot+to, "", unix.MS_MOVE, ""); err != nil {
			return fmt.Errorf("move %s to the new root: %w", from, err)
		}
	}
	if err := os.Chdir(newRoot); err != nil {
		return err
	}
	freeInitramfs("/")
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("switch root: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("switch root: %w", err)
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	err := syscall.Exec("/sbin/init", []string{"/sbin/init"}, handOver(facts))
	return fmt.Errorf("start /sbin/init: %w", err)
}

// freeInitramfs deletes the files of the initramfs, which otherwise hold their
// memory forever; it does not cross into other file systems. A file that stays
// costs memory and nothing else.
func freeInitramfs(dir string) {
	var top unix.Stat_t
	if unix.Lstat(dir, &top) == nil {
		freeBelow(dir, top.Dev)
	}
}

func freeBelow(dir string, device uint64) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		name := filepath.Join(dir, e.Name())
		var st unix.Stat_t
		if unix.Lstat(name, &st) != nil || st.Dev != device {
			continue
		}
		if st.Mode&unix.S_IFMT == unix.S_IFDIR {
			freeBelow(name, device)
			_ = unix.Rmdir(name)
			continue
		}
		_ = unix.Unlink(name)
	}
}
