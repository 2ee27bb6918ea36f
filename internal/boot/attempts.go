package boot

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"oscine.dev/oscine/internal/durable"
)

// attemptsFile, on the data partition, counts the boots of an image that was
// once marked good and since has not got as far as READY. The boot loader's own
// counter is gone by then, so a slot that rots later would be tried for ever.
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

// recordAttempts stores that image was started n times.
func recordAttempts(data, image string, n int) error {
	file := filepath.Join(data, attemptsFile)
	if err := durable.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return durable.WriteFile(file, fmt.Appendf(nil, "%d %s\n", n, image), 0o644)
}

// forgetAttempts is called when the system is READY.
func forgetAttempts(data string) error {
	return durable.Remove(filepath.Join(data, attemptsFile))
}
