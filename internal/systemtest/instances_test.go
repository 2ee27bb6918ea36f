package systemtest

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/serve/engine/enginetest"
)

// TestHostedInstances serves a model by two workers: both answer, either may die
// without a lost request, the next daemon takes both over, and what has no room is
// said.
func TestHostedInstances(t *testing.T) {
	d := newDaemon(t)
	n := d.testNode
	dir := t.TempDir()
	write := writing(t, dir)
	n.run("pack", "install", makeEnginePack(n))
	status := func() (st object.ModelStatus) {
		t.Helper()
		raw, err := json.Marshal(n.object("model", "m")["status"])
		if err != nil || json.Unmarshal(raw, &st) != nil {
			t.Fatalf("status %s, %v", raw, err)
		}
		return st
	}
	ready := func(want int) (st object.ModelStatus) {
		t.Helper()
		n.eventually(fmt.Sprintf("%d instances are ready", want), 60*time.Second, func() (string, bool) {
			st = status()
			running := 0
			for _, in := range st.Instances {
				if in.Phase == object.Running && in.PID != 0 {
					running++
				}
			}
			return fmt.Sprintf("%+v", st), running == want
		})
		return st
	}
	model := write("m.otm", enginetest.Magic+"sleep\n")
	n.refuse([]string{"serve", model, "--instances", "33"}, "spec.instances: must be from 1 to 32, got 33")
	n.run("serve", model, "--instances", "2", "--memory", "64Mi")
	ready(2)
	n.run("delete", "model", "m")
	if left := leftOf("model-m", "model2-m"); len(left) > 0 {
		t.Errorf("after it was deleted: %q", left)
	}
	n.run("serve", model, "--instances", "2", "--memory", "64Mi")
	st := ready(2)
	if a, b := st.Instances[0], st.Instances[1]; a.PID == b.PID || a.Placement == nil || b.Placement == nil || st.PID != a.PID || st.Phase != object.Running || st.Message != "" {
		t.Errorf("got %+v", st)
	}
	if got := n.run("apply", "-f", write("again.yaml", n.run("get", "model", "m", "-o", "yaml"))); !strings.Contains(got, "unchanged") {
		t.Errorf("applied again:\n%s", got)
	}

	n.eventually("the log of the second instance", later, func() (string, bool) {
		_, errOut, code := n.try("logs", "model", "m", "--instance", "2") // which wrote to its stderr
		return errOut, code == 0 && strings.Contains(errOut, "serves model")
	})
	n.refuse([]string{"logs", "model", "m", "--instance", "3"}, "has no instance 3, its last one is 2")

	// Clients that never pause, while one worker after the other is killed.
	var clients sync.WaitGroup
	done := make(chan struct{})
	for c := range 4 {
		request := write(fmt.Sprintf("request%d.json", c), fmt.Sprintf(`{"inputs":[{"name":"n","shape":[1],"datatype":"INT32","data":[%d]}]}`, 400+c))
		clients.Go(func() {
			for answered := 0; ; answered++ {
				select {
				case <-done:
					if answered == 0 {
						t.Errorf("client %d was never answered", c)
					}
					return
				default:
				}
				if out, errOut, code := n.try("infer", "m", "-f", request); code != 0 || !strings.Contains(out, fmt.Sprintf("[%d]", 400+c)) {
					t.Errorf("client %d: exit status %d, %s %s", c, code, out, errOut)
					return
				}
			}
		})
	}
	n.eventually("both instances answer", 60*time.Second, func() (string, bool) {
		st = status()
		return fmt.Sprintf("%+v", st.Instances), st.Instances[0].Runs > 0 && st.Instances[1].Runs > 0
	})
	for i := range 2 {
		before := ready(2).Instances
		if err := syscall.Kill(before[i].PID, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		n.eventually("the instance that was killed is back", 60*time.Second, func() (string, bool) {
			st = status()
			in := st.Instances[i]
			return fmt.Sprintf("%+v", st.Instances), in.Phase == object.Running && in.Restarts == before[i].Restarts+1 && in.PID != before[i].PID && in.PID != 0
		})
		// What is tried again is tried once: it has to be answered before the
		// next worker is killed.
		answered := st.Requests + 12
		n.eventually("what was tried again is answered", 60*time.Second, func() (string, bool) {
			st = status()
			return fmt.Sprintf("%+v", st), st.Requests >= answered
		})
		other := 1 - i
		if st.Instances[other].PID != before[other].PID || st.Instances[other].Restarts != before[other].Restarts {
			t.Errorf("the other instance: %+v, was %+v", st.Instances[other], before[other])
		}
	}
	close(done)
	clients.Wait()
	if st = status(); st.Errors != 0 {
		t.Errorf("%d requests failed", st.Errors)
	}
	if got := n.run("top", "models", "--every", "200ms"); !strings.Contains(got, "128 MiB") { // the limits of both
		t.Errorf("top models:\n%s", got)
	}

	// The next daemon finds both workers.
	before := ready(2).Instances
	d.stop(syscall.SIGTERM)
	d.start()
	for i, in := range ready(2).Instances {
		if in.PID != before[i].PID || in.Restarts != 0 {
			t.Errorf("instance %d after the restart: %+v, was %+v", i+1, in, before[i])
		}
	}

	// With one instance the other's container is gone; where only some have room it
	// is said.
	n.run("serve", model, "--memory", "64Mi")
	n.eventually("the second instance is gone", 60*time.Second, func() (string, bool) {
		left := leftOf("model2-m")
		st = status()
		return fmt.Sprintf("%q, %+v", left, st), len(left) == 0 && len(st.Instances) == 0 && st.Phase == object.Running && st.Update == nil
	})
	n.run("delete", "model", "m")
	most := fmt.Sprint(memTotal(t) / 10 * 6) // two of them do not fit
	manifest := fmt.Sprintf("apiVersion: oscine.dev/v1\nkind: Model\nmetadata: {name: m}\nspec: {source: '%s', instances: 2, resources: {memory: %s}}\n", st.Digest, most)
	for _, args := range [][]string{{"apply", "--dry-run", "-f"}, {"apply", "-f"}} {
		if got, want := n.run(append(args, write("large.yaml", manifest))...), "1 of 2 instances are placed; instance 2 waits"; !strings.Contains(got, want) {
			t.Errorf("%q: got %s, want %q", args, got, want)
		}
	}
	n.eventually("it is said which instance waits, and for what", 30*time.Second, func() (string, bool) {
		st = status()
		return fmt.Sprintf("%+v", st), st.Phase == object.Running && strings.Contains(st.Message, "1 of 2 instances are ready; instance 2 is waiting") && strings.Contains(st.Message, "memory")
	})
	n.run("infer", "m", "-f", filepath.Join(dir, "request0.json"))
}

// leftOf are the cgroups that objects or instances still have, by their IDs.
func leftOf(ids ...string) (left []string) {
	for _, id := range ids {
		for _, below := range []string{"", "*/"} { // cgroup v2 and v1
			found, _ := filepath.Glob("/sys/fs/cgroup/" + below + "oscine.slice/*/" + id)
			left = append(left, found...)
		}
	}
	return left
}
