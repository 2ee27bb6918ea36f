package bench

import (
	"strings"
	"testing"
	"time"
)

func TestStagesSumAndMedian(t *testing.T) {
	boot := func(cpu ...time.Duration) (out []Stage) {
		for i, name := range []string{"firmware", stageKernel, stageAnswer} {
			out = append(out, Stage{Name: name, CPU: cpu[i], Instructions: int64(cpu[i])})
		}
		return out
	}
	stages := medianStages([][]Stage{boot(3, 30, 300), boot(1, 10, 100), boot(2, 20, 200)})
	if got := sumOf(stages, "").CPU; got != 222 {
		t.Errorf("sum of the medians: got %d, want 222", got)
	}
	if got := sumOf(boot(1, 10, 100), stageKernel).Instructions; got != 110 {
		t.Errorf("sum from the kernel's start: got %d, want 110", got)
	}
	if got := medianStages(nil); got != nil {
		t.Errorf("no boots: got %v", got)
	}
}

// The lines are those that init and the daemon print; a boot that is measured
// waits for each of them.
func TestWriteStages(t *testing.T) {
	var text strings.Builder
	direct := []Stage{{Name: stageKernel, CPU: 2 * time.Second}, {Name: stageAnswer, CPU: time.Second}}
	counted := []Stage{{Name: stageKernel, Instructions: 950e6}, {Name: stageAnswer, Instructions: 50e6}}
	writeStages(&text, []Staged{{Way: wayDirect, CPU: direct, Counted: counted}})
	for _, want := range []string{
		"firmware                                  -              -\n",
		"kernel                                 2.00            950\n",
		"power-on to the first answer           3.00           1000\n",
	} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("the table lacks %q:\n%s", want, text.String())
		}
	}
}
