package serving

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"oscine.dev/oscine/internal/serve"
	"oscine.dev/oscine/internal/serve/oip"
	"oscine.dev/oscine/internal/serve/servetest"
	"oscine.dev/oscine/internal/tensor"
)

func serveDoubler(t *testing.T) string {
	rig := servetest.New(t)
	rig.Ready("m")
	server := httptest.NewUnstartedServer(serve.NewHandler(rig.Registry, serve.Options{}))
	server.Config.Protocols = new(http.Protocols)
	server.Config.Protocols.SetHTTP1(true)
	server.Config.Protocols.SetUnencryptedHTTP2(true)
	server.Start()
	t.Cleanup(server.Close)
	return server.URL
}

func options(change func(*Options)) Options {
	o := Options{Clients: 1, Count: 100, Timeout: 10 * time.Second}
	change(&o)
	return o
}

// A real front and worker answer every protocol and encoding, in both loops.
func TestAgainstARealServer(t *testing.T) {
	address := serveDoubler(t)
	for _, c := range []struct {
		protocol, encoding string
		options            Options
	}{
		{HTTP, Binary, options(func(o *Options) { o.Clients = 4 })},
		{HTTP, JSON, options(func(o *Options) { o.Warmup = 20 * time.Millisecond })},
		{GRPC, Binary, options(func(o *Options) { o.Clients = 100 })},
		{HTTP, Binary, options(func(o *Options) { o.Rate, o.Clients = 500, 64 })},
		{GRPC, Binary, options(func(o *Options) { o.Rate, o.Clients = 500, 64 })},
	} {
		target, err := Dial(Endpoint{URL: address, Protocol: c.protocol, Clients: c.options.Clients})
		if err != nil {
			t.Fatal(err)
		}
		defer target.Close()
		model, err := target.Model(t.Context(), "m")
		if err != nil || model.Name != "m" || len(model.Inputs) != 1 {
			t.Fatalf("%s: %+v, %v", c.protocol, model, err)
		}
		if has, err := target.HasBinary(t.Context()); !has || err != nil {
			t.Errorf("%s: binary tensors: %v, %v", c.protocol, has, err)
		}
		inputs, err := Inputs(model, InputOptions{Batch: 2})
		if err != nil {
			t.Fatal(err)
		}
		prepared, err := target.Prepare("m", inputs, c.encoding)
		if err != nil {
			t.Fatal(err)
		}
		if answer, err := prepared.Answer(t.Context()); err != nil || len(answer) != 2 || len(answer[0].Data) == 0 {
			t.Errorf("%s %s: answer %v, %v", c.protocol, c.encoding, answer, err)
		}
		m, err := Run(t.Context(), func(ctx context.Context, _ uint64) error { return prepared.Send(ctx) }, c.options)
		if err != nil || m.Answered != 100 || m.Failed != 0 || m.Latency.Count() != 100 || m.Throughput <= 0 || m.ClientCPU <= 0 || (m.SendDelay != nil) != (c.options.Rate > 0) {
			t.Errorf("%s %s: %+v, %v", c.protocol, c.encoding, m, err)
		}
	}
}

func TestTokenIsSent(t *testing.T) {
	rig := servetest.New(t)
	rig.Ready("m")
	models, missed := serve.NewHandler(rig.Registry, serve.Options{}), atomic.Int32{}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer tok-1" {
			missed.Add(1)
		}
		models.ServeHTTP(w, r)
	}))
	server.Config.Protocols = new(http.Protocols)
	server.Config.Protocols.SetHTTP1(true)
	server.Config.Protocols.SetUnencryptedHTTP2(true)
	server.Start()
	t.Cleanup(server.Close)
	for _, test := range []struct {
		protocol, token string
		missed          int32
	}{{HTTP, "tok-1", 0}, {GRPC, "tok-1", 0}, {HTTP, "", 2}, {GRPC, "", 2}} {
		target, err := Dial(Endpoint{URL: server.URL, Token: test.token, Protocol: test.protocol, Clients: 1})
		if err != nil {
			t.Fatal(err)
		}
		defer target.Close()
		missed.Store(0)
		row := oip.Tensor{Spec: tensor.Spec{Name: "x", Type: tensor.FP32, Shape: tensor.Shape{1, 4}}, Data: make([]byte, 16)}
		request, err := target.Prepare("m", []oip.Tensor{row}, Binary)
		if err == nil {
			err = request.Send(t.Context())
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, err := target.Model(t.Context(), "m"); err != nil || missed.Load() != test.missed {
			t.Errorf("%+v: %d requests without the token, %v", test, missed.Load(), err)
		}
	}
}

// A version that is asked for is the one that is described and answers.
func TestVersions(t *testing.T) {
	address := serveDoubler(t)
	for _, protocol := range []string{HTTP, GRPC} {
		for version, known := range map[string]bool{"1": true, "9": false} {
			target, err := Dial(Endpoint{URL: address, Version: version, Protocol: protocol, Clients: 1})
			if err != nil {
				t.Fatal(err)
			}
			defer target.Close()
			_, described := target.Model(t.Context(), "m")
			row := oip.Tensor{Spec: tensor.Spec{Name: "x", Type: tensor.FP32, Shape: tensor.Shape{1, 4}}, Data: make([]byte, 16)}
			request, err := target.Prepare("m", []oip.Tensor{row}, Binary)
			if err != nil {
				t.Fatal(err)
			}
			if answered := request.Send(t.Context()); (described == nil) != known || (answered == nil) != known {
				t.Errorf("%s, version %s: %v, %v", protocol, version, described, answered)
			}
		}
	}
}

func TestRefusalsAreCountedByReason(t *testing.T) {
	address := serveDoubler(t)
	for protocol, want := range map[string]string{HTTP: "HTTP 404 Not Found", GRPC: "NotFound"} {
		target, err := Dial(Endpoint{URL: address, Protocol: protocol, Clients: 1})
		if err != nil {
			t.Fatal(err)
		}
		defer target.Close()
		_, err = target.Model(t.Context(), "other")
		var refused *oip.Error
		if !errors.As(err, &refused) || refused.Status != 404 {
			t.Errorf("%s: the description of an unknown model: %v", protocol, err)
		}
		row := oip.Tensor{Spec: tensor.Spec{Name: "x", Type: tensor.FP32, Shape: tensor.Shape{1, 4}}, Data: make([]byte, 16)}
		prepared, err := target.Prepare("other", []oip.Tensor{row}, Binary)
		if err != nil {
			t.Fatal(err)
		}
		m, err := Run(t.Context(), func(ctx context.Context, _ uint64) error { return prepared.Send(ctx) }, options(func(o *Options) { o.Count = 3 }))
		if err != nil || m.Answered != 0 || m.Failed != 3 || len(m.Errors) != 1 || m.Errors[0].Reason != want || !strings.Contains(m.Errors[0].Example, "other") {
			t.Errorf("%s: %+v, %v", protocol, m, err)
		}
	}
}

func TestUnreachableServers(t *testing.T) {
	for protocol, want := range map[string]string{HTTP: "connection refused", GRPC: "connection failed"} {
		target, err := Dial(Endpoint{URL: "http://127.0.0.1:1", Protocol: protocol, Clients: 1})
		if err != nil {
			t.Fatal(err)
		}
		defer target.Close()
		_, err = target.Model(t.Context(), "m")
		if err == nil {
			t.Fatal("something answers at port 1")
		}
		if got, _ := reasonOf(err); got != want {
			t.Errorf("%s: reason %q of %v, want %q", protocol, got, err, want)
		}
	}
}

// In the open loop a request that waits for the client's own bound is late from
// when it was due.
func TestOpenLoopCountsFromWhenARequestWasDue(t *testing.T) {
	stalled := false
	m, err := Run(t.Context(), func(context.Context, uint64) error {
		if !stalled {
			stalled = true
			time.Sleep(300 * time.Millisecond)
		}
		return nil
	}, options(func(o *Options) { o.Rate, o.Count = 1000, 200 }))
	if err != nil || m.Answered != 200 {
		t.Fatalf("%+v, %v", m, err)
	}
	// All of the 200 were due in the first 200 ms, and waited.
	if p50 := m.Latency.Quantile(.5); p50 < 100*time.Millisecond {
		t.Errorf("half of the requests took %v; the stall of 300 ms is hidden", p50)
	}
	if late := m.SendDelay.Quantile(.5); late < 100*time.Millisecond {
		t.Errorf("half of the requests were sent %v late", late)
	}
}

func TestClosedLoopHasItsClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var at, most atomic.Int64
		m, err := Run(t.Context(), func(context.Context, uint64) error {
			if n := at.Add(1); n > most.Load() {
				most.Store(n)
			}
			time.Sleep(10 * time.Millisecond)
			at.Add(-1)
			return nil
		}, Options{Clients: 5, Warmup: time.Second, Duration: 2 * time.Second, Timeout: time.Second})
		if err != nil || most.Load() != 5 || m.Answered != 1000 || m.Elapsed != 2*time.Second || m.Throughput != 500 {
			t.Errorf("%d at a time, %+v, %v", most.Load(), m, err)
		}
		if len(m.Timeline) == 0 || m.Timeline[len(m.Timeline)-1].From+m.Timeline[len(m.Timeline)-1].Length != m.Elapsed {
			t.Errorf("timeline %+v", m.Timeline)
		}
	})
}

func TestTimeoutsAndInterrupts(t *testing.T) {
	hang := func(ctx context.Context, _ uint64) error { <-ctx.Done(); return ctx.Err() }
	m, err := Run(t.Context(), hang, options(func(o *Options) { o.Count, o.Timeout = 2, 10*time.Millisecond }))
	if err != nil || m.Failed != 2 || m.Errors[0].Reason != errTimeout.Error() {
		t.Errorf("%+v, %v", m, err)
	}
	for _, rate := range []float64{0, 100} {
		ctx, cancel := context.WithCancel(t.Context())
		var once sync.Once
		m, err = Run(ctx, func(ctx context.Context, n uint64) error {
			if n < 5 {
				return nil
			}
			once.Do(func() { time.AfterFunc(10*time.Millisecond, cancel) })
			return hang(ctx, n)
		}, options(func(o *Options) { o.Rate = rate }))
		if err != nil || !m.Interrupted || m.Answered != 5 || m.Failed != 0 {
			t.Errorf("rate %g: %+v, %v", rate, m, err)
		}
	}
}

// A server that never keeps up does not keep the client.
func TestOverloadEndsInTime(t *testing.T) {
	begin := time.Now()
	m, err := Run(t.Context(), func(context.Context, uint64) error {
		time.Sleep(20 * time.Millisecond)
		return nil
	}, Options{Clients: 2, Rate: 5000, Duration: 200 * time.Millisecond, Timeout: time.Second})
	if err != nil || time.Since(begin) > 2*time.Second || m.Answered > 100 || len(m.Errors) != 1 || m.Errors[0].Reason != errUnsent.Error() || m.Answered+m.Failed < 800 {
		t.Errorf("after %v: %+v, %v", time.Since(begin), m, err)
	}
}

func TestPoisson(t *testing.T) {
	next := Poisson(1000, 7)
	const n = 100_000
	gaps := make([]float64, n)
	last := time.Duration(0)
	for i := range gaps {
		at := next()
		gaps[i], last = (at - last).Seconds(), at
	}
	mean, square := last.Seconds()/n, 0.0
	for _, g := range gaps {
		square += (g - mean) * (g - mean)
	}
	if deviation := math.Sqrt(square / n); math.Abs(mean-1e-3) > 2e-5 || math.Abs(deviation-1e-3) > 2e-5 {
		t.Errorf("gaps of %g s, deviation %g s; a Poisson process of 1000/s has 0.001 for both", mean, deviation)
	}
}

func TestWrongOptions(t *testing.T) {
	for want, change := range map[string]func(*Options){
		"0 clients":              func(o *Options) { o.Clients = 0 },
		"a rate of -1":           func(o *Options) { o.Rate = -1 },
		"a rate of NaN":          func(o *Options) { o.Rate = math.NaN() },
		"neither a duration":     func(o *Options) { o.Count = 0 },
		"a warm-up of -1s":       func(o *Options) { o.Warmup = -time.Second },
		"a count of -1 requests": func(o *Options) { o.Count = -1 },
	} {
		o := options(change)
		if _, err := Run(t.Context(), nil, o); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func TestInputs(t *testing.T) {
	var specs []tensor.Spec
	for kind := tensor.Bool; kind.Valid(); kind++ {
		specs = append(specs, tensor.Spec{Name: kind.String(), Type: kind, Shape: tensor.Shape{-1, 3}})
	}
	m := &oip.Model{Name: "m", Inputs: specs}
	inputs, err := Inputs(m, InputOptions{Batch: 2, Shapes: map[string]tensor.Shape{"FP64": {5, 3}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, in := range inputs {
		want := tensor.Shape{2, 3}
		if in.Name == "FP64" {
			want = tensor.Shape{5, 3}
		}
		if !slices.Equal(in.Shape, want) {
			t.Errorf("%s has shape %s, want %s", in.Name, in.Shape, want)
		}
		if size := in.Type.Size(); size > 0 && len(in.Data) != size*int(want[0]*want[1]) {
			t.Errorf("%s has %d bytes", in.Name, len(in.Data))
		}
	}
	for want, o := range map[string]InputOptions{
		`has no input "y"`: {Batch: 1, Shapes: map[string]tensor.Shape{"y": {1}}},
		`input "INT8"`:     {Batch: 1, Shapes: map[string]tensor.Shape{"INT8": {1, 4}}},
		"choose a smaller": {Batch: 100_000_000},
	} {
		if _, err := Inputs(m, o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	for _, text := range []string{"x", ":1", "x:", "x:1,-1", "x:a"} {
		if _, _, err := ParseShape(text); err == nil {
			t.Errorf("%q is read as a shape", text)
		}
	}
	if name, shape, err := ParseShape("a:b:1,2"); name != "a:b" || !slices.Equal(shape, tensor.Shape{1, 2}) || err != nil {
		t.Errorf("a:b:1,2 is %q %v, %v", name, shape, err)
	}
}

// Long runs keep few windows, and none loses a request.
func TestTimelineIsBounded(t *testing.T) {
	r := newRecorder(Options{})
	for i := range 10_000 {
		var err error
		if i%10 == 0 {
			err = errors.New("refused")
		}
		end := r.begin.Add(time.Duration(i) * 50 * time.Millisecond)
		r.add(end.Add(-time.Millisecond), end, end, err)
	}
	m := r.measured()
	var answered, failed uint64
	for _, w := range m.Timeline {
		answered, failed = answered+w.Answered, failed+w.Failed
	}
	if len(m.Timeline) > maxWindows || answered != 9000 || failed != 1000 {
		t.Errorf("%d windows with %d answered, %d failed", len(m.Timeline), answered, failed)
	}
}

func TestReport(t *testing.T) {
	r := newRecorder(Options{Rate: 50})
	for i := range 1000 {
		end := r.begin.Add(time.Duration(i) * time.Millisecond)
		r.add(end.Add(-time.Duration(i+1)*time.Microsecond), end, end, nil)
	}
	r.add(r.begin, r.begin, r.begin, &oip.Error{Status: 429, Text: "model <m> is busy"})
	report := &Report{Model: "m", Server: "http://node", Protocol: HTTP, Encoding: JSON, Inputs: []string{"x FP32[4]"}, Clients: 8, Rate: 50, Batch: 2, Measured: *r.measured()}
	var text, page bytes.Buffer
	if err := errors.Join(report.WriteText(&text), report.WriteHTML(&page)); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"HTTP JSON, open loop, 50 requests/s, at most 8 at a time", "1000 answered, 1 failed", "p99.9 999 µs", "1 × HTTP 429 Too Many Requests: model <m> is busy", "rows/s", "█"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("the text lacks %q:\n%s", want, text.String())
		}
	}
	for _, want := range []string{"<!doctype html>", "model &lt;m&gt; is busy", "<svg", "99.9 %", "failed/s"} {
		if !strings.Contains(page.String(), want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	for _, never := range []string{"<script", "http://www", "src=", "NaN", "Inf"} {
		if strings.Contains(page.String(), never) {
			t.Errorf("the page has %q", never)
		}
	}
	raw, err := json.Marshal(report)
	if err != nil || !strings.Contains(string(raw), `"p99Ns"`) || !strings.Contains(string(raw), `"throughput"`) {
		t.Errorf("%s, %v", raw, err)
	}
}
