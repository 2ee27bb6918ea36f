package cli

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"oscine.dev/oscine/internal/bench/latency"
	"oscine.dev/oscine/internal/bench/loadgen"
	"oscine.dev/oscine/internal/bench/serving"
	"oscine.dev/oscine/internal/durable"
	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/serve/oip"
	"oscine.dev/oscine/internal/tensor"
)

// benchServeOptions are the flags of bench serve.
type benchServeOptions struct {
	load serving.Options
	endpoint
	version            string
	protocol, encoding string
	inputs, shapes     []string
	batch, samples     int
	page               string
	output             *string
	scenario           benchScenarioOptions
}

func newBenchServeCommand(env *Env) *cobra.Command {
	o := benchServeOptions{load: serving.Options{Warmup: time.Second, Timeout: 30 * time.Second}, protocol: serving.HTTP, batch: 1, samples: 16}
	c := &cobra.Command{
		Use:               "serve MODEL",
		ValidArgsFunction: completeObject(env, object.KindModel),
		Short:             "Measure the latency and throughput of a served model",
		Long: `Send requests to a served model and measure how long their answers take.

Without --rate each of --clients sends its next request when the last is answered
(closed loop): this finds the highest throughput. With --rate requests arrive at
random times, as from many independent users (open loop, a Poisson process),
whether the earlier ones are answered or not, and latency counts from the time
when a request was due: this finds the latency at that load.

Inputs are generated from the model's description; open dimensions are 1 unless
--batch or --shape says otherwise. --input FILE sends a JSON request of the Open
Inference Protocol instead. Different requests take turns. The server is the context's node, or any server of the
protocol by --url. Ctrl-C ends the measurement with the report of what ran.

--scenario runs a scenario of MLPerf Inference and judges it by its rules: then
--duration and --count are the least that a run has, and --rate is the target of
scenario server, and what scenario offline expects. --logs writes the files that
MLPerf's own load generator does.`,
		Example: `  oscine bench serve digits --clients 8
  oscine bench serve digits --rate 500 --duration 30s --html report.html
  oscine bench serve resnet --url http://192.0.2.7:8000 --shape data:1,3,224,224 -o json
  oscine bench serve digits --protocol grpc --count 10000
  oscine bench serve digits --scenario server --rate 200 --latency 50ms --logs out`,
		Args: exactArgs(1, "MODEL"),
		RunE: func(c *cobra.Command, args []string) error {
			if err := o.check(c); err != nil {
				return usageError{err}
			}
			if o.page != "" {
				if err := checkOutput("html", o.page); err != nil {
					return err
				}
			}
			if o.scenario.logs != "" {
				if err := os.MkdirAll(o.scenario.logs, 0o755); err != nil {
					return fmt.Errorf("--logs: %w: name another folder", err)
				}
				if err := checkOutput("logs", filepath.Join(o.scenario.logs, loadgen.SummaryFile)); err != nil {
					return err
				}
			}
			return o.run(c.Context(), env, args[0])
		},
	}
	f := c.Flags()
	f.StringVar(&o.version, "version", "", "version of the model (default the one that the server chooses)")
	f.IntVar(&o.load.Clients, "clients", 0, "requests at a time; with --rate the most (default 1, with --rate 1024)")
	f.Float64Var(&o.load.Rate, "rate", 0, "requests a second, at random times (open loop)")
	f.DurationVar(&o.load.Warmup, "warmup", o.load.Warmup, "load before the measurement")
	f.DurationVar(&o.load.Duration, "duration", 0, "of the measurement (default 10s, or as long as --count takes)")
	f.IntVar(&o.load.Count, "count", 0, "requests to measure (default as many as fit the duration)")
	f.DurationVar(&o.load.Timeout, "timeout", o.load.Timeout, "of each request")
	f.Uint64Var(&o.load.Seed, "seed", 0, "of inputs and arrival times (default random)")
	o.addFlags(c)
	f.StringVar(&o.protocol, "protocol", o.protocol, "http or grpc")
	f.StringVar(&o.encoding, "encoding", "", "of tensors over HTTP, binary or json (default binary where the server has it)")
	f.StringArrayVar(&o.inputs, "input", nil, "send this JSON request, - for standard input (repeatable)")
	f.IntVar(&o.samples, "samples", o.samples, "how many different inputs to generate")
	f.IntVar(&o.batch, "batch", o.batch, "rows of each generated request")
	f.StringArrayVar(&o.shapes, "shape", nil, "shape of a generated input, as NAME:1,3,224,224 (repeatable)")
	f.StringVar(&o.page, "html", "", "also write the report with plots as a web page to this file")
	o.scenario.addFlags(c)
	o.output = addReportOutput(c)
	return c
}

// check completes the flags and says what is wrong with them.
func (o *benchServeOptions) check(c *cobra.Command) error {
	set := c.Flags().Changed
	switch {
	case set("rate") && o.load.Rate <= 0:
		return fmt.Errorf("--rate %g: requests arrive at a rate above 0 a second; without --rate the loop is closed", o.load.Rate)
	case set("clients") && o.load.Clients < 1:
		return fmt.Errorf("--clients %d: at least one is needed", o.load.Clients)
	case set("duration") && o.load.Duration <= 0:
		return fmt.Errorf("--duration %v: it has to be above 0", o.load.Duration)
	case set("count") && o.load.Count < 1:
		return fmt.Errorf("--count %d: at least one request is needed", o.load.Count)
	case o.batch < 1:
		return fmt.Errorf("--batch %d: at least one row is needed", o.batch)
	case o.protocol != serving.HTTP && o.protocol != serving.GRPC:
		return fmt.Errorf("--protocol %s: choose http or grpc", o.protocol)
	case o.encoding != "" && o.encoding != serving.Binary && o.encoding != serving.JSON:
		return fmt.Errorf("--encoding %s: choose binary or json", o.encoding)
	case o.encoding == serving.JSON && o.protocol == serving.GRPC:
		return errors.New("--encoding json: gRPC's tensors are binary; leave out --encoding, or use --protocol http")
	case len(o.inputs) > 0 && (set("batch") || set("samples") || len(o.shapes) > 0 || o.encoding == serving.Binary):
		return errors.New("--input FILE says what is sent: leave out --batch, --samples, --shape and --encoding")
	case o.samples < 1:
		return fmt.Errorf("--samples %d: at least one input is needed", o.samples)
	}
	if err := o.scenario.check(c); err != nil {
		return err
	}
	if !set("seed") {
		o.load.Seed = uint64(rand.Uint32()) // short enough to be typed again
	}
	if !set("clients") {
		o.load.Clients = 1
		if o.load.Rate > 0 {
			o.load.Clients = 1024
		}
		if o.scenario.name != "" {
			o.load.Clients = o.scenario.clients()
		}
	}
	if o.load.Duration == 0 && (o.load.Count == 0 || o.scenario.name != "") {
		o.load.Duration = 10 * time.Second
	}
	if o.scenario.name != "" {
		if err := o.scenario.settings(o).Check(); err != nil {
			return err
		}
	}
	return o.load.Check()
}

func (o *benchServeOptions) run(ctx context.Context, env *Env, model string) error {
	server, err := o.server(env)
	if err != nil {
		return err
	}
	to := serving.Endpoint{URL: server.URL, Version: o.version, Token: server.Token, Protocol: o.protocol, Clients: o.load.Clients}
	if web, ok := server.HTTP.Transport.(*http.Transport); ok {
		to.TLS = web.TLSClientConfig.Clone() // the node's
	}
	target, err := serving.Dial(to)
	if err != nil {
		return err
	}
	defer target.Close()
	report := &serving.Report{Model: model, Server: to.URL, Protocol: o.protocol, Clients: o.load.Clients, Rate: o.load.Rate}
	requests, err := o.requests(ctx, env, target, report)
	if err == nil {
		report.Bytes = requests[0].Size()
		err = o.try(ctx, requests[0])
	}
	if err != nil {
		return o.explain(ctx, env, server, model, err)
	}
	return o.measure(ctx, env, requests, report)
}

// requests makes those that are sent, and notes in the report what they are.
func (o *benchServeOptions) requests(ctx context.Context, env *Env, target serving.Target, report *serving.Report) ([]serving.Prepared, error) {
	report.Encoding = o.encoding
	if len(o.inputs) > 0 {
		report.Inputs, report.Encoding = o.inputs, serving.JSON
		if o.protocol == serving.GRPC {
			report.Encoding = serving.Binary
		}
		var all []serving.Prepared
		for _, file := range o.inputs {
			text, err := readRequest(env, file)
			if err != nil {
				return nil, err
			}
			one, err := serving.PrepareText(target, report.Model, text)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", file, err)
			}
			all = append(all, one)
		}
		return all, nil
	}
	model, err := target.Model(ctx, report.Model)
	if err != nil {
		return nil, err
	}
	report.Platform = model.Platform
	if report.Encoding == "" {
		binary, err := target.HasBinary(ctx)
		if err != nil {
			return nil, err
		}
		if report.Encoding = serving.JSON; binary {
			report.Encoding = serving.Binary
		}
	}
	shapes := map[string]tensor.Shape{}
	for _, text := range o.shapes {
		name, shape, err := serving.ParseShape(text)
		if err != nil {
			return nil, usageError{fmt.Errorf("--shape: %w", err)}
		}
		shapes[name] = shape
	}
	return o.generate(target, model, shapes, report)
}

// maxPrepared bounds the requests that are held ready, in bytes.
const maxPrepared = 1 << 30

func (o *benchServeOptions) generate(target serving.Target, model *oip.Model, shapes map[string]tensor.Shape, report *serving.Report) ([]serving.Prepared, error) {
	var all []serving.Prepared
	total := 0
	for i := range o.samples {
		inputs, err := serving.Inputs(model, serving.InputOptions{Batch: o.batch, Shapes: shapes, Seed: o.load.Seed + uint64(i)})
		if err != nil {
			return nil, usageError{err} // of --shape and --batch
		}
		one, err := target.Prepare(report.Model, inputs, report.Encoding)
		if err != nil {
			return nil, err
		}
		if total += one.Size(); total > maxPrepared {
			return nil, fmt.Errorf("%d requests of %d bytes are too much to hold ready: choose fewer by --samples", o.samples, one.Size())
		}
		all = append(all, one)
		if i > 0 {
			continue
		}
		report.Batch = rows(model, inputs)
		for _, in := range inputs {
			report.Inputs = append(report.Inputs, fmt.Sprintf("%s %s%s", in.Name, in.Type, in.Shape))
		}
	}
	return all, nil
}

// rows is the number of rows of a request with these inputs: the first dimension of
// those whose first dimension is open, 1 where there are none, and 0, not known,
// where they differ.
func rows(model *oip.Model, inputs []oip.Tensor) int {
	n := 1
	seen := false
	for i, spec := range model.Inputs {
		if len(spec.Shape) == 0 || spec.Shape[0] != -1 {
			continue
		}
		first := int(inputs[i].Shape[0])
		if seen && first != n {
			return 0
		}
		n, seen = first, true
	}
	return n
}

// try sends one request, so that one that can't be answered is told at once.
func (o *benchServeOptions) try(ctx context.Context, request serving.Prepared) error {
	ctx, cancel := context.WithTimeout(ctx, o.load.Timeout)
	defer cancel()
	err := request.Send(ctx)
	var refused *oip.Error
	if errors.As(err, &refused) && refused.Status == 400 && len(o.inputs) == 0 && strings.Contains(refused.Text, "sequence_id") {
		return fmt.Errorf("%w: send a request with its parameters sequence_id, sequence_start and sequence_end by --input FILE", err)
	}
	if errors.As(err, &refused) && refused.Status == 400 && len(o.inputs) == 0 && !strings.Contains(refused.Text, "HTTPS server") {
		return fmt.Errorf("the model refuses generated inputs: %w: choose others by --shape, or a request by --input FILE", err)
	}
	var network *url.Error
	if errors.Is(err, context.DeadlineExceeded) && errors.As(err, &network) {
		return fmt.Errorf("no answer within %v: give a longer --timeout", o.load.Timeout)
	}
	return err
}

func (o *benchServeOptions) measure(ctx context.Context, env *Env, requests []serving.Prepared, report *serving.Report) error {
	send := func(ctx context.Context, number uint64) error {
		return requests[number%uint64(len(requests))].Send(ctx)
	}
	end := func() {}
	if file, ok := terminalOf(env.Err); ok {
		fmt.Fprint(file, "warming up")
		o.load.Progress = func(s serving.Snapshot) { showProgress(file, o.load, s) }
		end = func() { fmt.Fprint(file, "\r\033[K") }
	}
	var m *serving.Measured
	var err error
	if o.scenario.name == "" {
		m, err = serving.Run(ctx, send, o.load)
	} else {
		m, err = o.scenario.run(ctx, env, o, requests, report)
	}
	end()
	if err != nil {
		return err
	}
	report.Measured = *m
	if *o.output == outputTable {
		err = report.WriteText(env.Out)
	} else {
		err = writeDocument(env.Out, report, *o.output)
	}
	if o.page != "" { // whatever comes of it, the measurement was printed
		if failed := durable.Write(o.page, 0o644, func(f *os.File) error { return report.WriteHTML(f) }); failed != nil {
			err = errors.Join(err, fmt.Errorf("write the report: %w", failed))
		}
	}
	switch {
	case err != nil:
		return err
	case m.Answered == 0 && !m.Interrupted:
		return errors.New("no request was answered: the report says why")
	case report.Verdict != nil && !report.Verdict.Valid:
		return errors.New("the run is not valid: the report says why")
	}
	return nil
}

func showProgress(w *os.File, o serving.Options, s serving.Snapshot) {
	whole := ""
	switch {
	case o.Duration > 0:
		whole = fmt.Sprintf(" of %v", o.Duration)
	case o.Count > 0:
		whole = fmt.Sprintf(", %d of %d", s.Answered+s.Failed, o.Count)
	}
	fmt.Fprintf(w, "\r\033[K%.1fs%s  %.0f/s  p50 %s  p99 %s  %d failed", s.Elapsed.Seconds(), whole, s.Rate, latency.Short(s.P50), latency.Short(s.P99), s.Failed)
}
