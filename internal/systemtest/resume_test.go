package systemtest

import (
	"testing"
	"time"

	"oscine.dev/oscine/internal/machine/machinetest"
	"oscine.dev/oscine/internal/pki"
)

// TestResume resumes one saved machine twice: neither sees what the other did,
// each seeds its random numbers again, and both run containers.
func TestResume(t *testing.T) {
	for _, name := range []string{"first", "second"} {
		began := time.Now()
		n, m := resumeNode(t, standard())
		cpu, err := m.CPUTime()
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("the API of the %s answers after %v, %v of processor time", name, time.Since(began).Round(10*time.Millisecond), cpu)
		if got := n.run("get", "-o", "name"); got != "" {
			t.Errorf("the %s machine is not as it was saved:\n%s", name, got)
		}
		n.apply(classManifest(name, "batch", `{memory: 32Mi}`))
		n.awaitPhase("workload", name, "Running", later)
		if n.arch != "amd64" {
			continue
		}
		n.awaitOutput("crng reseeded due to virtual machine fork", "dmesg")
	}
}

// TestSavedClock holds that the clock of a saved machine, which lags by the
// machine's age where no time server is reached, takes certificates made now.
func TestSavedClock(t *testing.T) {
	authority, err := pki.NewAuthority("test")
	if err != nil {
		t.Fatal(err)
	}
	admin, err := pki.NewClient(authority, "admin", pki.Admin, pki.ClientLifetime)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := admin.TLS()
	if err != nil {
		t.Fatal(err)
	}
	if lag := time.Since(pair.Leaf.NotBefore); lag < machinetest.SavedFor+time.Hour {
		t.Errorf("a new certificate is valid for clocks that lag by %v, saved machines may lag by %v", lag, machinetest.SavedFor)
	}
}
