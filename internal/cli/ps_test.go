package cli

import (
	"regexp"
	"testing"
)

func TestPsListsWhatRuns(t *testing.T) {
	n := labelledNode(t)
	n.objects[0].Status = structOf(t, `{"phase":"Running","pid":70,"engine":"onnx","placement":{"cpus":"1"}}`)
	n.objects[1].Status = structOf(t, `{"phase":"Exited","exitCode":0}`)
	n.objects[2].Status = structOf(t, `{"phase":"Unhealthy","pid":71}`)
	_, out, errOut := n.command(t, "ps")
	if want := `^KIND +NAME +PHASE +PID .*\nModel +digits +Running +70 +1 +- +onnx\nWorkload +web +Unhealthy +71 +- +- +-\n$`; !regexp.MustCompile(want).MatchString(out) {
		t.Errorf("got %q, %s", out, errOut)
	}
	if _, out, _ := n.command(t, "ps", "-o", "name", "-l", "tier"); out != "workload/web\n" {
		t.Errorf("names: %q", out)
	}
}
