package oip

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"oscine.dev/oscine/internal/serve/servetest"
)

// parameterised asks for one inference with the request's parameters.
func (r *rig) parameterised(name string, x float32, parameters string) (int, string) {
	r.Helper()
	body := fmt.Sprintf(`{"parameters":{%s},"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[%g,0,0,0]}]}`, parameters, x)
	status, _, text := r.do("POST", "/v2/models/"+name+"/infer", nil, body)
	return status, text
}

func TestScheduleParametersAreChecked(t *testing.T) {
	r := newRig(t)
	r.Ready("m")
	for parameters, want := range map[string]string{
		`"timeout":-1`:             "choose microseconds from 1",
		`"timeout":3600000001`:     "choose microseconds from 1",
		`"timeout":"soon"`:         "needs a whole number",
		`"priority":-1`:            "choose 1, served first",
		`"priority":1001`:          "choose 1, served first",
		`"priority":1e3`:           "needs a whole number",
		`"priority":0,"timeout":0`: "",
		`"priority":7`:             "",
	} {
		status, text := r.parameterised("m", 2, parameters)
		if want == "" && status != 200 || want != "" && (status != 400 || !strings.Contains(text, want)) {
			t.Errorf("%s: got %d %s, want %q", parameters, status, text, want)
		}
	}
}

func TestTimeoutIsGatewayTimeout(t *testing.T) {
	r := newRig(t)
	open := r.Gate("doubler")
	defer open()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if status, text := r.parameterised("m", 2, `"timeout":5000`); status == http.StatusGatewayTimeout && strings.Contains(text, "was not computed") {
			return
		}
	}
	t.Error("no request ran into its timeout")
}

func TestDeadWorkerIsUnavailable(t *testing.T) {
	r := newRig(t)
	r.Ready("m")
	status, header, text := r.do("POST", "/v2/models/m/infer", nil, fmt.Sprintf(`{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[%d,0,0,0]}]}`, servetest.Poison))
	if status != 503 || header.Get("Retry-After") == "" {
		t.Errorf("got %d %v %s", status, header, text)
	}
}

func TestTimeoutHeader(t *testing.T) {
	r := newRig(t)
	r.Ready("m")
	body := `{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[2,0,0,0]}]}`
	for value, want := range map[string]int{"0.000001": 504, "never": 400, "-1": 400, "60": 200} {
		if status, _, text := r.do("POST", "/v2/models/m/infer", http.Header{"X-Request-Timeout": {value}}, body); status != want {
			t.Errorf("%s: got %d %s, want %d", value, status, text, want)
		}
	}
}
