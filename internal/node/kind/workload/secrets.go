package workload

import (
	"bytes"
	"fmt"
	"maps"
	"slices"

	"oscine.dev/oscine/internal/container"
	"oscine.dev/oscine/internal/object"
)

// secrets is what a workload is given of Secrets.
type secrets struct {
	env   map[string]string
	files []container.Files
}

// secrets collects what the workload names. Its errors, which people see, name
// Secrets and entries and never their values.
func (c *controller) secrets(w *object.Workload) (given secrets, err error) {
	given.env = map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(w.Spec.SecretEnv)) {
		ref, err := object.ParseSecretRef(w.Spec.SecretEnv[name])
		if err != nil {
			return given, fmt.Errorf("spec.secretEnv.%s: %w", name, err)
		}
		values, err := c.secret(ref.Secret)
		if err != nil {
			return given, err
		}
		value, ok := values[ref.Entry]
		switch {
		case !ok:
			return given, fmt.Errorf("spec.secretEnv.%s waits: Secret/%s has no entry %s: add it with oscine secret set %[2]s", name, ref.Secret, ref.Entry)
		case bytes.IndexByte(value, 0) >= 0 || len(value) > maxEnvValue:
			return given, fmt.Errorf("spec.secretEnv.%s: the entry %s of Secret/%s has a zero byte or more than %d bytes and fits no variable: mount it with spec.secrets", name, ref.Entry, ref.Secret, maxEnvValue)
		}
		given.env[name] = string(value)
	}
	for _, m := range w.Spec.Secrets {
		values, err := c.secret(m.Name)
		if err != nil {
			return given, err
		}
		given.files = append(given.files, container.Files{Target: m.Path, Content: values})
	}
	return given, nil
}

// maxEnvValue is below what the kernel takes of one variable with its name
// (MAX_ARG_STRLEN, 128 KiB).
const maxEnvValue = 120 << 10

func (c *controller) secret(name string) (map[string][]byte, error) {
	values, ok := c.o.Secrets.Values(name)
	if !ok {
		return nil, fmt.Errorf("waits for Secret/%s, which is not there: make it with oscine secret set %[1]s", name)
	}
	return values, nil
}
