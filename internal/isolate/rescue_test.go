package isolate

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestStalledReadersAreFound(t *testing.T) {
	for _, c := range []struct {
		line string
		want []int
	}{
		{"6,1371,324458021,-;rcu: \tTasks blocked on level-0 rcu_node (CPUs 0-3): P3943/1:b..l", []int{3943}},
		{"3,1,1,-;rcu: \tTasks blocked on level-1 rcu_node (CPUs 0-15): P12/2:b..l P7 P900/1:bE.l", []int{12, 7, 900}},
		{"6,1,1,-;rcu: INFO: rcu_preempt detected expedited stalls on CPUs/tasks: { P3943 } 5667 jiffies s: 397 root: 0x0/T", []int{3943}},
		{"6,1,1,-;rcu: INFO: rcu_preempt detected expedited stalls on CPUs/tasks: { 3-... } 5667 jiffies s: 397 root: 0x8/.", nil},
		{"6,1,1,-;web P12 said something of stalls", nil},
		{"6,1,1,-;rcu: \tTasks blocked on level-0 rcu_node: P99999999999", nil},
		{"", nil},
	} {
		if diff := cmp.Diff(c.want, stalledReaders(c.line)); diff != "" {
			t.Errorf("%q (-want +got):\n%s", c.line, diff)
		}
	}
}

func FuzzStalledReaders(f *testing.F) {
	f.Add("rcu: \tTasks blocked on level-0 rcu_node (CPUs 0-3): P3943/1:b..l")
	f.Fuzz(func(t *testing.T, line string) {
		for _, tid := range stalledReaders(line) {
			if tid <= 0 {
				t.Errorf("thread %d of %q", tid, line)
			}
		}
	})
}
