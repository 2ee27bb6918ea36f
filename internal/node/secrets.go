package node

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/distribution/reference"

	"oscine.dev/oscine/internal/node/reconcile"
	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/serve/bucket"
)

// secrets are the values of the node's Secrets, for those that use them.
type secrets struct{ objects func() []object.Object }

func (n *Node) secrets() secrets {
	return secrets{func() []object.Object { return n.loop.Objects() }} // the loop comes after those who ask
}

// Values implements workload.Secrets.
func (s secrets) Values(name string) (map[string][]byte, bool) {
	for _, obj := range s.objects() {
		if secret, ok := obj.(*object.Secret); ok && secret.Metadata.Name == name {
			return secret.Values(), true
		}
	}
	return nil, false
}

// login returns the credentials for a registry's host, "" for none.
func (s secrets) login(host string) (username, password string) {
	for _, obj := range s.objects() {
		secret, ok := obj.(*object.Secret)
		if ok && secret.Spec.Registry != nil && sameServer(secret.Spec.Registry.Server, host) {
			return secret.Spec.Registry.Username, string(secret.Values()[object.PasswordEntry])
		}
	}
	return "", ""
}

// bucket says how a bucket is reached, with the credentials of its Secret. S may be nil.
func (s secrets) bucket(at *object.S3) (bucket.Access, error) {
	var a bucket.Access
	if at != nil {
		a.S3 = *at
	}
	if a.Secret == "" {
		return a, nil
	}
	values, ok := s.Values(a.Secret)
	if !ok {
		return a, fmt.Errorf("waits for Secret/%s, which is not there: make it with oscine secret set %[1]s %s=… --from-stdin %s", a.Secret, object.S3AccessKeyID, object.S3SecretAccessKey)
	}
	for entry, value := range map[string]*string{object.S3AccessKeyID: &a.AccessKeyID, object.S3SecretAccessKey: &a.SecretAccessKey, object.S3SessionToken: &a.SessionToken} {
		if *value = strings.TrimSpace(string(values[entry])); *value == "" && entry != object.S3SessionToken {
			return a, fmt.Errorf("waits for the entry %s of Secret/%s: add it with oscine secret set %[2]s", entry, a.Secret)
		}
	}
	return a, nil
}

// hub are the names of Docker Hub: in references, of its API, of its index.
var hub = [...]string{"docker.io", "registry-1.docker.io", "index.docker.io"}

func sameServer(a, b string) bool {
	return strings.EqualFold(a, b) || slices.Contains(hub[:], strings.ToLower(a)) && slices.Contains(hub[:], strings.ToLower(b))
}

// uses reports whether an object runs with a Secret's values.
func uses(obj object.Object, secret *object.Secret) bool {
	w, ok := obj.(*object.Workload)
	return ok && slices.Contains(w.SecretNames(), secret.Metadata.Name)
}

// pullsWith reports whether an object's image or model comes from a Secret's registry, or
// its model from a bucket with the Secret's credentials.
func pullsWith(obj object.Object, secret *object.Secret) bool {
	m, isModel := obj.(*object.Model)
	if isModel && m.SecretName() == secret.Metadata.Name {
		return true
	}
	if secret.Spec.Registry == nil {
		return false
	}
	if isModel {
		return sameServer(m.Registry(), secret.Spec.Registry.Server)
	}
	w, ok := obj.(*object.Workload)
	if !ok {
		return false
	}
	ref, err := reference.ParseDockerRef(w.Spec.Image)
	return err == nil && sameServer(reference.Domain(ref), secret.Spec.Registry.Server)
}

// checkSecret gives a Secret the values that it keeps from the one that is
// there, and finds what contradicts others.
func checkSecret(secret *object.Secret, objects, there []object.Object) (problems []string) {
	var present map[string][]byte
	for _, obj := range there {
		if old, ok := obj.(*object.Secret); ok && old.Key() == secret.Key() {
			present = old.Values()
		}
	}
	for _, name := range secret.Keep(present) {
		problems = append(problems, fmt.Sprintf("%s: spec.kept.%s: this node has no value to keep: give one in spec.stringData or spec.data", secret.Key(), name))
	}
	changing := map[object.Key]bool{}
	for _, obj := range objects {
		changing[obj.Key()] = true
	}
	others := slices.Clone(objects)
	for _, obj := range there {
		if !changing[obj.Key()] {
			others = append(others, obj)
		}
	}
	for _, obj := range others {
		if w, ok := obj.(*object.Workload); ok {
			problems = append(problems, removedEntries(w, secret, present)...)
		}
		if secret.Spec.Registry == nil {
			continue
		}
		other, ok := obj.(*object.Secret)
		if ok && other.Key() != secret.Key() && other.Spec.Registry != nil && sameServer(other.Spec.Registry.Server, secret.Spec.Registry.Server) {
			problems = append(problems, fmt.Sprintf("%s: spec.registry.server: %s has the credentials for %s: change or delete that one", secret.Key(), other.Key(), other.Spec.Registry.Server))
		}
	}
	return problems
}

// removedEntries finds the entries that a workload uses and that a changed
// Secret has no more.
func removedEntries(w *object.Workload, secret *object.Secret, before map[string][]byte) (problems []string) {
	for _, variable := range slices.Sorted(maps.Keys(w.Spec.SecretEnv)) {
		ref, err := object.ParseSecretRef(w.Spec.SecretEnv[variable])
		if err != nil || ref.Secret != secret.Metadata.Name {
			continue
		}
		_, had := before[ref.Entry]
		if _, has := secret.Values()[ref.Entry]; had && !has {
			problems = append(problems, fmt.Sprintf("%s: %s uses its entry %s as %s: keep it, or change that first", secret.Key(), w.Key(), ref.Entry, variable))
		}
	}
	return problems
}

// secretsChanged starts what uses a changed Secret again, or rewrites its
// files, and has what waited for one tried now.
func (n *Node) secretsChanged(objects []object.Object, results []Result) {
	for i, r := range results {
		secret, ok := objects[i].(*object.Secret)
		if !ok || r.Action == reconcile.Unchanged {
			continue
		}
		n.loop.Renew(func(obj object.Object) bool { return uses(obj, secret) })
		n.loop.Wake(func(obj object.Object) bool { return pullsWith(obj, secret) })
	}
}

// checkDelete refuses to delete a Secret that workloads or models use.
func checkDelete(key object.Key, there []object.Object) error {
	if key.Kind != object.KindSecret {
		return nil
	}
	var users []string
	for _, obj := range there {
		w, isWorkload := obj.(*object.Workload)
		m, isModel := obj.(*object.Model)
		if isWorkload && slices.Contains(w.SecretNames(), key.Name) || isModel && m.SecretName() == key.Name {
			users = append(users, obj.Key().String())
		}
	}
	if len(users) > 0 {
		return fmt.Errorf("%w: %s is used by %s: delete or change these first", ErrConflict, key, strings.Join(users, ", "))
	}
	return nil
}
