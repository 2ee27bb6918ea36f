package boot

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"oscine.dev/oscine/internal/linux"
	"oscine.dev/oscine/internal/release"
)

// stage1Data is the data partition as stage 1 finds it and leaves it.
type stage1Data struct {
	part      linux.Partition // zero where the disk has none
	mounted   linux.Partition // part once it is mounted at newData; zero when /var has to be volatile
	encrypted bool
	locked    string // why an encrypted one cannot be opened
}

// findData finds the data partition of the disk, and tells whether it is encrypted.
func findData(parts []linux.Partition, disk string) stage1Data {
	p, ok := linux.FindPartition(parts, disk, release.PartitionData)
	return stage1Data{part: p, encrypted: ok && isEncrypted(p.Node())}
}

// isEncrypted reports that a device begins with a LUKS header.
func isEncrypted(node string) bool {
	f, err := os.Open(node)
	if err != nil {
		return false
	}
	defer f.Close()
	magic := make([]byte, len(release.EncryptedMagic))
	_, err = f.ReadAt(magic, 0)
	return err == nil && string(magic) == release.EncryptedMagic
}

// counter is where the attempts of an image are counted; nil for nowhere.
func (d *stage1Data) counter() *counter {
	switch {
	case d.encrypted:
		return &counter{device: d.part.Node()}
	case d.mounted.Device != "":
		return &counter{data: newData}
	}
	return nil
}

// mountPlain mounts a data partition that is not encrypted, or what stands in for it.
func (d *stage1Data) mountPlain(log *Log, m *modules, parts []linux.Partition, disk string) {
	if d.part.Device == "" {
		log.Error("disk %s has no partition %s: everything written will be lost at power-off", disk, release.PartitionData)
	} else if err := mountData(m, d.part.Node(), newData); err != nil {
		log.Error("cannot use the data partition, everything written will be lost at power-off: %v", err)
	} else {
		d.mounted = d.part
		return
	}
	if err := mountVolatile(newData); err != nil {
		log.Error("%v", err)
	}
}

// beginData reports whether the data partition is to be erased, and has the log of a
// boot on trial kept on one that is not.
func beginData(log *Log, parts []linux.Partition, disk string, from booted, d stage1Data) (reset bool) {
	reset = resetWanted(log, parts, disk, d)
	if from.entry.Counted && d.mounted.Device != "" && !reset {
		keepLog(log, filepath.Join(newData, stateDir), from.image)
	}
	return reset
}

// sealModules are what opening an encrypted data partition needs, where they are not
// in the kernel. They lie on the root, where other machines leave them alone.
func sealModules() []string {
	return []string{"tpm_crb", "tpm_tis", "aesni_intel", "aes_ce_blk", "xts", "dm_crypt"}
}

// openTimeout is how long the daemon may take to open the data partition: a TPM makes
// a key, which takes some of them seconds.
const openTimeout = 45 * time.Second

// open has the daemon's program on the root open the encrypted data partition, and
// mounts it. One that stays locked is not the fault of the image that was started.
func (d *stage1Data) open(log *Log, m *modules, from booted) {
	began := time.Now()
	loadFromRoot(log)
	armWatchdog(log) // the countdown begins again
	node, err := runOpenData(newRoot+Daemon, d.part.Node(), openTimeout)
	armWatchdog(log)
	if err == nil {
		err = mountData(m, node, newData)
	}
	if err == nil {
		d.mounted = d.part
		log.Notice("data partition opened by the TPM in %d ms", ms(began, time.Now()))
		return
	}
	d.locked = err.Error()
	if err := removeDataMapping(); err != nil { // it keeps the partition busy, and a reset is to be possible
		log.Error("%v", err)
	}
	log.Error("the data partition is locked, and nothing of it is changed: %s", d.locked)
	if err := d.counter().record(from.image, 0); err != nil {
		log.Error("forget the attempts of %s: %v", from.image, err)
	}
	if err := mountVolatile(newData); err != nil {
		log.Error("%v", err)
	}
}

// removeDataMapping removes the open partition, if there is one.
func removeDataMapping() error {
	if err := linux.RemoveMapping(release.DataMapping); !errors.Is(err, unix.ENXIO) {
		return err
	}
	return nil
}

// loadFromRoot loads what the data partition needs.
func loadFromRoot(log *Log) {
	m := openModulesIn(log, newRoot+linux.ModulesDir())
	for _, name := range sealModules() {
		err := m.load(name, "")
		if err != nil && !errors.Is(err, errNoModule) && !errors.Is(err, unix.ENODEV) { // ENODEV: for another CPU
			log.Error("%v", err)
		}
	}
}

// maxOpenData is the most bytes that are read of what the daemon writes.
const maxOpenData = 2 << 10

// killedWait is how long a program may take to end once it is killed. One that waits
// for a TPM does not before the TPM answers, which the kernel gives minutes.
const killedWait = time.Second

// runOpenData has a program open the partition, and returns the open one's node. The
// reason of an error is one line.
func runOpenData(program, partition string, timeout time.Duration) (string, error) {
	reader, writer, err := os.Pipe()
	if err != nil {
		return "", err
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return "", errors.Join(err, reader.Close(), writer.Close())
	}
	attr := &syscall.ProcAttr{Dir: "/", Files: []uintptr{null.Fd(), writer.Fd(), writer.Fd()}}
	pid, err := syscall.ForkExec(program, []string{program, release.OpenData, partition}, attr)
	if err := errors.Join(err, null.Close(), writer.Close()); err != nil {
		return "", errors.Join(fmt.Errorf("%s: %w", program, err), reader.Close())
	}
	type result struct {
		node string
		err  error
	}
	ended := make(chan result, 1)
	go func() {
		node, err := awaitOpenData(pid, reader)
		ended <- result{node, err}
	}()
	select {
	case r := <-ended:
		return r.node, r.err
	case <-time.After(timeout):
	}
	_ = unix.Kill(pid, unix.SIGKILL)
	select {
	case <-ended:
	case <-time.After(killedWait): // PID 1 reaps it
	}
	return "", fmt.Errorf("opening it took more than %s", timeout)
}

// awaitOpenData waits for the end of the program.
func awaitOpenData(pid int, said io.ReadCloser) (node string, err error) {
	raw, err := io.ReadAll(io.LimitReader(said, maxOpenData))
	if err = errors.Join(err, said.Close()); err != nil {
		return "", err
	}
	var status unix.WaitStatus
	for {
		if _, err = unix.Wait4(pid, &status, 0, nil); !errors.Is(err, unix.EINTR) {
			break
		}
	}
	text := strings.TrimSpace(string(raw))
	switch {
	case err != nil:
		return "", err
	case status.Signaled():
		return "", fmt.Errorf("the program that opens it was ended by a signal: %s", status.Signal())
	case text == "":
		return "", fmt.Errorf("the program that opens it gave no reason: exit status %d", status.ExitStatus())
	case status.ExitStatus() != 0 || !strings.HasPrefix(text, "/dev/"):
		return "", errors.New(text[strings.LastIndexByte(text, '\n')+1:])
	}
	return text, nil
}
