package serve

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// parameterised asks for one inference with the request's parameters.
func (r *rig) parameterised(name string, x float32, parameters string) (int, string) {
	r.Helper()
	body := fmt.Sprintf(`{"parameters":{%s},"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[%g,0,0,0]}]}`, parameters, x)
	status, _, text := r.do("POST", "/v2/models/"+name+"/infer", nil, body)
	return status, text
}

// gate serves a model whose worker answers the first request when open is
// called, and returns once that request runs.
func (r *rig) gate(kind string) (open func()) {
	r.Helper()
	starter := testWorker(r.TempDir(), kind)
	if err := r.registry.Add(Model{Name: "m", Starter: starter}); err != nil {
		r.Fatal(err)
	}
	if err := r.registry.WaitReady(r.Context(), "m"); err != nil {
		r.Fatal(err)
	}
	done := make(chan bool)
	go func() {
		defer close(done)
		if status, text := r.parameterised("m", gated, ""); status != 200 {
			r.Errorf("the first request: got %d %s", status, text)
		}
	}()
	r.waiting(0)
	return func() {
		if err := os.WriteFile(starter.Model, nil, 0o600); err != nil {
			r.Error(err)
		}
		<-done
	}
}

// waiting returns once the worker is busy and n requests wait for it.
func (r *rig) waiting(n int) {
	r.Helper()
	m, err := r.registry.model("m", "")
	if err != nil {
		r.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		m.queue.mu.Lock()
		there := m.queue.busy && len(m.queue.waiting) == n
		m.queue.mu.Unlock()
		if there {
			return
		}
	}
	r.Fatalf("%d requests never waited", n)
}

func TestRequestThatExpiresIsNotComputed(t *testing.T) {
	r := newRig(t)
	open := r.gate("doubler")
	// The worker is busy for as long as we like: the refusal cannot come from it.
	if status, text := r.parameterised("m", 2, `"timeout":5000`); status != http.StatusGatewayTimeout || !strings.Contains(text, "was not computed") {
		t.Errorf("got %d %s", status, text)
	}
	open()
	if status, text := r.parameterised("m", 2, `"timeout":60000000`); status != 200 {
		t.Errorf("a request in time: got %d %s", status, text)
	}
	s, err := r.registry.Status("m")
	if err != nil || s.Expired != 1 {
		t.Errorf("%d expired, %v; want 1", s.Expired, err)
	}
}

// Requests that cannot share a run are taken by rank, not by arrival.
func TestWaitingRequestsAreTakenByRank(t *testing.T) {
	r := newRig(t)
	open := r.gate("single")
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		order []string
	)
	for i, q := range []struct{ name, parameters string }{
		{"usual", ""}, {"soon", `"timeout":40000000`}, {"sooner", `"timeout":30000000`}, {"first", `"priority":1`},
	} {
		wg.Go(func() {
			status, text := r.parameterised("m", sloth, q.parameters)
			mu.Lock()
			defer mu.Unlock()
			if order = append(order, q.name); status != 200 {
				t.Errorf("%s: got %d %s", q.name, status, text)
			}
		})
		r.waiting(i + 1)
	}
	open()
	wg.Wait()
	if got, want := strings.Join(order, " "), "first sooner soon usual"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestScheduleParametersAreChecked(t *testing.T) {
	r := newRig(t)
	r.ready("m")
	for parameters, want := range map[string]string{
		`"timeout":-1`:             "choose microseconds from 1",
		`"timeout":3600000001`:     "choose microseconds from 1",
		`"timeout":"soon"`:         "a whole number should be",
		`"priority":-1`:            "choose 1, served first",
		`"priority":1001`:          "choose 1, served first",
		`"priority":1e3`:           "should be",
		`"priority":0,"timeout":0`: "",
		`"priority":7`:             "",
	} {
		status, text := r.parameterised("m", 2, parameters)
		if want == "" && status != 200 || want != "" && (status != 400 || !strings.Contains(text, want)) {
			t.Errorf("%s: got %d %s, want %q", parameters, status, text, want)
		}
	}
}

func TestRankOrdersByPriorityThenDeadline(t *testing.T) {
	now := time.Now()
	m := &model{Model: Model{Timeout: time.Minute, Objective: 100 * time.Millisecond}}
	ranks := map[string]rank{
		"usual":   m.rank(&inferRequest{}, now),
		"earlier": m.rank(&inferRequest{}, now.Add(-time.Millisecond)),
		"tight":   m.rank(&inferRequest{timeout: time.Millisecond}, now),
		"patient": m.rank(&inferRequest{timeout: time.Hour}, now),
		"first":   m.rank(&inferRequest{priority: 1}, now.Add(time.Second)),
		"last":    m.rank(&inferRequest{priority: 200, timeout: time.Millisecond}, now),
	}
	for _, pair := range [][2]string{{"first", "tight"}, {"tight", "earlier"}, {"earlier", "usual"}, {"usual", "last"}, {"first", "last"}} {
		a, b := ranks[pair[0]], ranks[pair[1]]
		if a.compare(&b) >= 0 || b.compare(&a) <= 0 {
			t.Errorf("%s is not served before %s", pair[0], pair[1])
		}
	}
	if patient := ranks["patient"]; !patient.due.Equal(now.Add(100 * time.Millisecond)) {
		t.Error("a long timeout moved the objective")
	}
	none := &model{Model: Model{Timeout: time.Minute}}
	for name, got := range map[string]rank{
		"a model without objective":               none.rank(&inferRequest{}, now),
		"a client's timeout":                      none.rank(&inferRequest{timeout: time.Millisecond}, now),
		"a client's timeout before the objective": ranks["tight"],
	} {
		want := time.Time{}
		if name == "a client's timeout before the objective" {
			want = now.Add(100 * time.Millisecond)
		}
		if !got.promised.Equal(want) {
			t.Errorf("%s promises %v, want %v", name, got.promised, want)
		}
	}
}

// recorder is an Urgency that remembers what it was told.
type recorder struct {
	mu     sync.Mutex
	events []string
	within []time.Duration
	fail   error
}

func (u *recorder) Raise(threads []int, within time.Duration) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.events, u.within = append(u.events, fmt.Sprintf("raise %d", len(threads))), append(u.within, within)
	return u.fail
}

func (u *recorder) Lower(threads []int) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.events = append(u.events, fmt.Sprintf("lower %d", len(threads)))
	return nil
}

// urgent serves a model whose deadlines are told to u.
func (r *rig) urgent(u Urgency, objective time.Duration) {
	r.Helper()
	starter := testWorker(r.TempDir(), "doubler")
	if err := r.registry.Add(Model{Name: "m", Starter: starter, Objective: objective, Urgency: u}); err != nil {
		r.Fatal(err)
	}
	if err := r.registry.WaitReady(r.Context(), "m"); err != nil {
		r.Fatal(err)
	}
}

func TestWorkerIsUrgentWhileItComputes(t *testing.T) {
	r, u := newRig(t), &recorder{}
	r.urgent(u, 80*time.Second)
	if status, text := r.parameterised("m", 2, ""); status != 200 {
		t.Fatal(status, text)
	}
	if status, text := r.parameterised("m", sloth, `"timeout":30000000`); status != 200 {
		t.Fatal(status, text)
	}
	if got, want := strings.Join(u.events, ", "), "raise 1, lower 1, raise 1, lower 1"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	for _, within := range u.within {
		if within <= 30*time.Second || within > 80*time.Second {
			t.Errorf("told %v, want the objective of 80 s and not the timeout of 30 s", u.within)
		}
	}
	s, err := r.registry.Status("m")
	if err != nil || s.Missed != 0 || s.PriorityUnavailable != "" {
		t.Errorf("%+v %v", s, err)
	}
}

// Only what the operator promised lends priority: a client could otherwise take
// the processor from others by naming a short timeout.
func TestTimeoutOfAClientLendsNoPriority(t *testing.T) {
	r, u := newRig(t), &recorder{}
	r.urgent(u, 0)
	for range 3 {
		if status, text := r.parameterised("m", 2, `"timeout":900000,"priority":1`); status != 200 {
			t.Fatal(status, text)
		}
	}
	if len(u.events) != 0 {
		t.Errorf("the kernel was told %v", u.events)
	}
}

func TestRefusedUrgencyIsTold(t *testing.T) {
	r, u := newRig(t), &recorder{fail: errors.New("not permitted")}
	r.urgent(u, time.Nanosecond)
	for range 2 {
		if status, text := r.parameterised("m", 2, ""); status != 200 {
			t.Fatal(status, text)
		}
	}
	s, err := r.registry.Status("m")
	if err != nil || s.Missed != 2 || s.PriorityUnavailable != "not permitted" || len(u.events) != 1 {
		t.Errorf("%d missed, %q after %v, %v", s.Missed, s.PriorityUnavailable, u.events, err)
	}
}

// The threads that ONNX Runtime computes with are urgent too, and none of the
// Go runtime's.
func TestEngineThreadsAreUrgent(t *testing.T) {
	starter, registry, u := engine(t, digits), NewRegistry(), &recorder{}
	starter.Threads = 2
	server := httptest.NewServer(NewHandler(registry, Options{}))
	t.Cleanup(func() {
		server.Close()
		if err := registry.Remove("m"); err != nil {
			t.Error(err)
		}
	})
	if err := registry.Add(Model{Name: "m", Starter: starter, Objective: time.Second, Urgency: u}); err != nil {
		t.Fatal(err)
	}
	if err := registry.WaitReady(t.Context(), "m"); err != nil {
		t.Fatal(err)
	}
	data := strings.TrimSuffix(strings.Repeat("0.5,", 784), ",")
	status, _, text := doRequest(t, server.URL, "POST", "/v2/models/m/infer", nil,
		`{"inputs":[{"name":"image","shape":[1,1,28,28],"datatype":"FP32","data":[`+data+`]}]}`)
	if status != 200 {
		t.Fatal(status, text)
	}
	// The one that serves, and one besides it for the engine's two threads.
	want := fmt.Sprintf("raise %d, lower %[1]d", 1+min(2, runtime.NumCPU())-1)
	if got := strings.Join(u.events, ", "); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
