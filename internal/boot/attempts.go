package boot

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"oscine.dev/oscine/internal/durable"
)

// attemptsFile, on the data partition, counts the boots of an image that was
// once marked good and since has not got as far as READY. The boot loader's own
// counter is gone by then, so a slot that rots later would be tried forever.
const attemptsFile = "lib/oscine/boot-attempts"

// maxAttempts is how many such boots a good image gets before it is demoted.
const maxAttempts = 3

// attempts returns how often image was started since it last was READY.
func attempts(data, image string) int {
	raw, err := os.ReadFile(filepath.Join(data, attemptsFile))
	if err != nil {
		return 0
	}
	count, name, ok := strings.Cut(strings.TrimSpace(string(raw)), " ")
	n, err := strconv.Atoi(count)
	if !ok || err != nil || n < 0 || name != image {
		return 0
	}
	return n
}

// recordAttempts stores that image was started n times, 0 when the system is
// READY. A file of a few bytes that is there can be written on a full disk too:
// that is why it stays.
func recordAttempts(data, image string, n int) error {
	file, text := filepath.Join(data, attemptsFile), fmt.Appendf(nil, "%d %s\n", n, image)
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

// overwrite writes a small file in place, which takes no room.
func overwrite(name string, text []byte) error {
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(text, 0)
	return errors.Join(err, f.Truncate(int64(len(text))), f.Sync(), f.Close())
}
