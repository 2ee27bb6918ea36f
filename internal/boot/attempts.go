package boot

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"oscine.dev/oscine/internal/durable"
	"oscine.dev/oscine/internal/release"
)

// attemptsFile, on the data partition, counts the boots of an image that was
// once marked good and since has not got as far as READY. The boot loader's own
// counter is gone by then, so a slot that rots later would be tried forever.
const attemptsFile = "lib/oscine/boot-attempts"

// maxAttempts is how many such boots a good image gets before it is demoted.
const maxAttempts = 3

// counter is where the attempts of an image are kept: a file on a data partition that
// is mounted, or a block of one that is encrypted.
type counter struct {
	data   string // mount point
	device string // node of the encrypted partition; "" for one that is not
}

// countBlock is how long that block is, in bytes: a disk writes it whole or not at all.
const countBlock = 512

// attempts returns how often image was started since it last was READY.
func (c counter) attempts(image string) int {
	raw, err := c.read()
	if err != nil {
		return 0
	}
	raw, _, _ = bytes.Cut(raw, []byte{0})
	count, name, ok := strings.Cut(strings.TrimSpace(string(raw)), " ")
	n, err := strconv.Atoi(count)
	if !ok || err != nil || n < 0 || name != image {
		return 0
	}
	return n
}

func (c counter) read() ([]byte, error) {
	if c.device == "" {
		return os.ReadFile(filepath.Join(c.data, attemptsFile))
	}
	f, err := os.Open(c.device)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	block := make([]byte, countBlock)
	_, err = f.ReadAt(block, release.EncryptedCount)
	return block, err
}

// record stores that image was started n times, 0 when the system is
// READY. A file of a few bytes that is there can be written on a full disk too:
// that is why it stays.
func (c counter) record(image string, n int) error {
	text := fmt.Appendf(nil, "%d %s\n", n, image)
	if c.device != "" {
		return writeBlock(c.device, text)
	}
	file := filepath.Join(c.data, attemptsFile)
	err := durable.MkdirAll(filepath.Dir(file), 0o755)
	if err == nil {
		err = durable.WriteFile(file, text, 0o644)
	}
	if err == nil {
		return nil
	}
	if overwrite(file, text) == nil {
		return nil
	}
	return err
}

func writeBlock(device string, text []byte) error {
	if len(text) > countBlock {
		return fmt.Errorf("%d bytes do not fit into a block", len(text))
	}
	f, err := os.OpenFile(device, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	block := make([]byte, countBlock)
	copy(block, text)
	_, err = f.WriteAt(block, release.EncryptedCount)
	return errors.Join(err, f.Sync(), f.Close())
}

// overwrite writes a small file in place, which takes no room.
func overwrite(name string, text []byte) error {
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(text, 0)
	return errors.Join(err, f.Truncate(int64(len(text))), f.Sync(), f.Close())
}
