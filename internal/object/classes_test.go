package object

import (
	"strings"
	"testing"
)

func TestClassLimitsAreChecked(t *testing.T) {
	_, err := ParseMachine(strings.NewReader(`
apiVersion: oscine.dev/v1
kind: Machine
metadata: {name: node1}
spec:
  api: {ca: x, certificate: x, key: x}
  classes:
    interactive: {cpuWeight: 20000, memoryLow: 4Gi}
    batch: {cpuWeight: 5, memoryHigh: 12, pids: -1}
  hugePages: {3Mi: 3Mi, 2Mi: 64Mi, 1Gi: 1Mi}
`))
	if err == nil {
		t.Fatal("wrong limits were accepted")
	}
	for _, want := range []string{
		"spec.classes.interactive.cpuWeight: must be from 1 to 10000, got 20000",
		"spec.classes.batch.cpuWeight: batch runs when no other class wants to",
		"spec.classes.batch.memoryHigh: must be at least 1Mi, got 12",
		"spec.hugePages.3Mi: the page size must be a power of two",
		"spec.hugePages.1Gi: must be a positive multiple of the page size, got 1Mi",
		"spec.classes.batch.pids: must be from 1 to 4194304, got -1",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error lacks %q:\n%v", want, err)
		}
	}
	if strings.Contains(err.Error(), "interactive.memoryLow") {
		t.Errorf("4Gi is fine:\n%v", err)
	}
}
