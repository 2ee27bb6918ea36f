package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"oscine.dev/oscine/internal/api"
	"oscine.dev/oscine/internal/disk/empty"
	"oscine.dev/oscine/internal/durable"
	"oscine.dev/oscine/internal/encryption"
	"oscine.dev/oscine/internal/kmod"
	"oscine.dev/oscine/internal/linux"
	"oscine.dev/oscine/internal/network"
	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/release"
)

// dataFolder is where the data partition is mounted on the image.
const dataFolder = "/var"

// errEncryption is wrapped by what says why the data partition cannot be as the
// Machine wants it.
var errEncryption = errors.New("spec.storage.encryption")

func (o *options) encrypted() bool {
	m, ok := linux.MappingUnder(o.state)
	return ok && m.Name == release.DataMapping
}

// checkEncryption refuses a Machine that wants the data partition otherwise than it is.
func (o *options) checkEncryption(machine *object.Machine) error {
	wanted := machine.Spec.Storage.Encryption != ""
	switch {
	case wanted && o.hosted:
		return fmt.Errorf("%w: a hosted node has no data partition of its own: encrypt the disk by the host's means, and leave this out", errEncryption)
	case wanted && !o.encrypted():
		return fmt.Errorf("%w: this node's data partition is in use and not encrypted, and encrypting it would erase it: save what you need, then oscine reset and configure the node again, or leave this out", errEncryption)
	case !wanted && !o.hosted && o.encrypted():
		return fmt.Errorf("%w: this node's data partition is encrypted, and stays so until oscine reset erases it: set it to %s", errEncryption, object.EncryptionTPM)
	}
	return nil
}

// identityFiles are what a node has that was never configured, or only just.
func identityFiles() []string {
	return []string{release.MachineFile, keyFile, certificateFile, authorityFile}
}

// unused reports that the data partition holds nothing but what identifies the node,
// and what stage 1 and init note of its boots.
func (o *options) unused() (bool, error) {
	entries, err := os.ReadDir(o.state)
	if err != nil {
		return false, err
	}
	known := map[string]bool{"boot-attempts": true, release.BootLogFile: true}
	for _, name := range identityFiles() {
		known[name] = true
	}
	for _, e := range entries {
		if !known[e.Name()] {
			return false, nil
		}
	}
	return true, nil
}

// encrypt encrypts the data partition where the Machine wants that and nothing has used
// the partition yet. stored says that the Machine lies on it, and came from the ESP.
func (o *options) encrypt(machine *object.Machine, stored bool, log *slog.Logger) error {
	if machine.Spec.Storage.Encryption == "" || o.encrypted() {
		return nil
	}
	if unused, err := o.unused(); o.hosted || err != nil || !unused {
		return errors.Join(o.checkEncryption(machine), err)
	}
	p, err := findPartitions(o.facts())
	if err != nil {
		return fmt.Errorf("%w: %w", errEncryption, err)
	}
	began := time.Now()
	log.Info("encrypting the data partition, which nothing has used yet")
	if err := o.encryptData(p, stored, log); err != nil {
		return fmt.Errorf("%w: %w", errEncryption, err)
	}
	log.Info("the data partition is encrypted", "took", time.Since(began).Round(time.Millisecond))
	return nil
}

// partitions are those that encrypting changes.
type partitions struct{ esp, data linux.Partition }

func findPartitions(facts release.Facts) (p partitions, err error) {
	if facts.Data == "" {
		return p, errors.New("the data partition is not mounted")
	}
	all, err := linux.Partitions("/sys")
	if err != nil {
		return p, err
	}
	var hasESP, hasData bool
	p.esp, hasESP = linux.FindPartition(all, facts.Disk, release.PartitionESP)
	p.data, hasData = linux.FindPartition(all, facts.Disk, release.PartitionData)
	switch {
	case !hasESP || !hasData:
		return p, fmt.Errorf("disk %s lacks the partition %s or %s", facts.Disk, release.PartitionESP, release.PartitionData)
	case p.data.Size < encryption.MinSize:
		return p, fmt.Errorf("the data partition has %d MiB, and needs %d to be encrypted: use a larger disk", p.data.Size>>20, encryption.MinSize>>20)
	}
	return p, nil
}

// encryptData erases the data partition and makes it an encrypted one with the same
// files of the node's identity. It may fail at any point: before the erasure nothing
// has changed, and after it the partition is made as it was. A power failure meanwhile,
// or a disk that takes nothing more, leaves one that cannot be mounted, and a mark on
// the ESP by which stage 1 makes it empty: the node then begins again, with the Machine
// that came from the ESP.
func (o *options) encryptData(p partitions, stored bool, log *slog.Logger) error {
	loadAES(log)
	sealed, err := encryption.Seal()
	if err != nil {
		return err
	}
	files := map[string][]byte{}
	for _, name := range identityFiles() {
		content, err := os.ReadFile(filepath.Join(o.state, name))
		if err == nil {
			files[name] = content
		} else if !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	mark := map[string][]byte{release.ESPReset: []byte(release.ESPResetKeeps)}
	if stored {
		mark[release.ESPMachine] = files[release.MachineFile]
	}
	if err := o.onESP(p.esp, mark); err != nil {
		return err
	}
	if err := o.unmountData(); err != nil {
		return errors.Join(err, o.offESP(p.esp))
	}
	alive := func() {} // init hears from the daemon meanwhile, and init's own watchdog goes on
	node, err := encryption.Create(p.data.Node(), sealed, release.EmptyData, alive)
	if err != nil {
		restored := empty.Make(p.data.Node(), release.EmptyData, alive)
		if restored == nil {
			restored = o.fillData(p.data.Node(), files)
		}
		if restored == nil { // else the only copy of the Machine is on the ESP
			restored = o.offESP(p.esp)
		}
		return errors.Join(err, restored)
	}
	if err := o.fillData(node, files); err != nil {
		return err
	}
	if err := growFull(node); err != nil {
		log.Error("the data partition grows at the next start only", "error", err)
	}
	if err := o.offESP(p.esp); err != nil {
		log.Error("the mark of a reset stays on the ESP until the node is ready", "error", err)
	}
	return nil
}

// loadAES has the kernel use the processor's AES instructions for the mapping that is
// made next. The kernel does not ask for their module.
func loadAES(log *slog.Logger) {
	name, ok := map[string]string{"amd64": "aesni_intel", "arm64": "aes_ce_blk"}[runtime.GOARCH]
	if !ok {
		return
	}
	if err := kmod.Running().Load(name, nil); err != nil {
		log.Warn("cannot load the module of the processor's AES instructions: encryption may be slow until the next start", "error", err)
	}
}

// onESP writes files onto the ESP.
func (o *options) onESP(esp linux.Partition, files map[string][]byte) error {
	return linux.WithESP(esp, filepath.Join(o.run, "esp"), 0, func(dir string) error {
		for name, content := range files {
			file := filepath.Join(dir, name)
			if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), durable.WriteFile(file, content, 0o600)); err != nil {
				return err
			}
		}
		return linux.FlushFileSystem(dir)
	})
}

// offESP removes what onESP wrote. The Machine goes first, as it may hold a key.
func (o *options) offESP(esp linux.Partition) error {
	return linux.WithESP(esp, filepath.Join(o.run, "esp"), 0, func(dir string) error {
		return errors.Join(durable.Wipe(filepath.Join(dir, release.ESPMachine)), os.Remove(filepath.Join(dir, release.ESPReset)), linux.FlushFileSystem(dir))
	})
}

// unmountWait is how long the data partition may stay busy: init grows it after a start.
const unmountWait = 20 * time.Second

func (o *options) unmountData() error {
	for end := time.Now().Add(unmountWait); ; time.Sleep(100 * time.Millisecond) {
		if err := o.releaseLog(); err != nil { // a line opens it again
			return err
		}
		err := unix.Unmount(dataFolder, 0)
		if err == nil || !errors.Is(err, unix.EBUSY) || time.Now().After(end) {
			return os.NewSyscallError("unmount "+dataFolder, err)
		}
	}
}

// fillData mounts an empty data partition and writes the files of the node's identity.
func (o *options) fillData(node string, files map[string][]byte) error {
	if err := unix.Mount(node, dataFolder, "ext4", unix.MS_NOATIME|unix.MS_NODEV, "prjquota"); err != nil {
		return fmt.Errorf("mount %s at %s: %w", node, dataFolder, err)
	}
	err := errors.Join(o.makeFolders(), os.MkdirAll(filepath.Join(dataFolder, "tmp"), 0o755))
	for name, content := range files {
		err = errors.Join(err, durable.WriteFile(filepath.Join(o.state, name), content, 0o600))
	}
	return err
}

// growFull grows the file system to the end of the open partition.
func growFull(node string) error {
	f, err := os.Open(node)
	if err != nil {
		return err
	}
	defer f.Close()
	size, err := linux.DeviceSize(f)
	if err != nil {
		return err
	}
	const block = 4096 // of the empty data partition
	return linux.GrowExt4(dataFolder, uint64(size)/block)
}

// awaitUnlock waits for the recovery key of a locked data partition, and restarts the
// machine when that is given. What identifies the node is on the partition.
func awaitUnlock(ctx context.Context, o *options, why string, console io.Writer, alive *pulse, log *slog.Logger) error {
	key, err := o.ownKey()
	if err != nil {
		return err
	}
	m := &api.Maintenance{Key: key, Logger: log, Locked: why, OpenLocked: func(recoveryKey string) error {
		parts, err := linux.Partitions("/sys")
		if err != nil {
			return err
		}
		data, ok := linux.FindPartition(parts, o.facts().Disk, release.PartitionData)
		if !ok {
			return fmt.Errorf("disk %s has no partition %s any more", o.facts().Disk, release.PartitionData)
		}
		return encryption.Unlock(data.Node(), recoveryKey)
	}}
	fingerprint, err := m.Fingerprint()
	if err != nil {
		return err
	}
	address := o.listen
	if address == "" {
		address = listenAddress(o, maintenancePort)
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("listen for the recovery key: %w", err)
	}
	log.Error("the data partition is locked: waiting for its recovery key", "reason", why, "address", l.Addr().String(), "fingerprint", fingerprint)
	fmt.Fprintf(console, "The data partition of this node is locked, and nothing of it is changed: %s.\nOpen it with its recovery key: oscine unlock --address HOST\nThe node's fingerprint is now %s\n", why, fingerprint)
	if _, err := o.serveMaintenance(ctx, m, l, network.Config{Hostname: "oscine"}, alive, log); err != nil {
		return err
	}
	log.Warn("the recovery key was given: the machine restarts and opens its data partition")
	if err := rebooter(o)(false); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}
