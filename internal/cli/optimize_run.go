package cli

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"

	pb "oscine.dev/oscine/internal/api/oscinepb"
	"oscine.dev/oscine/internal/bounded"
	"oscine.dev/oscine/internal/client"
	"oscine.dev/oscine/internal/durable"
	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/optimize"
	"oscine.dev/oscine/internal/printable"
	"oscine.dev/oscine/internal/serve/bundle"
	"oscine.dev/oscine/internal/serve/modelpack"
)

// Bounds of what a node sends back.
const (
	maxOptimized = 16 << 30
	maxReport    = 1 << 20
	maxToolLog   = 64 << 10
)

// optimise has the node make the result, and keeps it where the gate lets it pass.
func (z *optimization) optimise(ctx context.Context) error {
	node, err := z.env.Client()
	if err != nil {
		return err
	}
	// On the disk of the result, so that it can be moved there at once.
	at := filepath.Dir(z.output)
	if z.push != nil {
		at = ""
	}
	dir, err := os.MkdirTemp(at, ".optimize-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := z.onNode(ctx, node, dir); err != nil {
		return fmt.Errorf("optimize %s: %w", z.named, err)
	}
	report, err := z.report(ctx, node, dir)
	if err != nil {
		return fmt.Errorf("optimize %s: %w", z.named, err)
	}
	if report.Refused != "" && !z.force {
		return fmt.Errorf("%s is not optimised: %s\n%s\n(--force keeps the result all the same)", z.named, report.Refused, strings.TrimRight(figures(report), "\n"))
	}
	if err := z.keep(ctx, dir, report); err != nil {
		return err
	}
	if report.Refused != "" {
		fmt.Fprintf(z.env.Err, "kept by --force: %s\n", printable.Text(report.Refused))
	}
	return nil
}

// onNode runs the tool as a workload, and unpacks into dir what it gives.
func (z *optimization) onNode(ctx context.Context, node *client.Client, dir string) error {
	key := object.Key{Kind: object.KindWorkload, Name: "optimize-" + strings.ToLower(rand.Text()[:8])}
	text, err := z.manifest(key.Name)
	if err != nil {
		return err
	}
	request, err := json.Marshal(z.request)
	if err != nil {
		return err
	}
	file := filepath.Join(dir, optimize.RequestFile)
	if err := os.WriteFile(file, request, 0o600); err != nil {
		return err
	}
	result := filepath.Join(dir, "result")
	if err := os.Mkdir(result, 0o700); err != nil {
		return err
	}
	resp, err := node.Objects.Apply(ctx, connect.NewRequest(&pb.ApplyRequest{Manifest: text}))
	if err != nil {
		return err
	}
	tellDisplaced(z.env.Err, resp.Msg.Results)
	defer removeWorkload(ctx, z.env, node, key.Name)
	if _, err := awaitWorkload(ctx, z.env, node, key, object.Running, object.Exited, object.Stopped); err != nil {
		return err
	}
	return z.transfer(ctx, node, key.Name, append(z.files, bundle.File{Name: optimize.RequestFile, Path: file, Size: int64(len(request))}), result)
}

// transfer gives the tool an archive and unpacks the one that it answers with.
func (z *optimization) transfer(ctx context.Context, node *client.Client, workload string, files []bundle.File, dir string) error {
	wait := newWaiting(z.env, "sending "+z.named)
	defer wait.done()
	sent, send := io.Pipe()
	received, receive := io.Pipe()
	defer sent.Close()
	sending, unpacked := make(chan error, 1), make(chan error, 1)
	go func() {
		err := bundle.Write(send, files)
		send.CloseWithError(err)
		sending <- err
	}()
	go func() {
		_, err := bundle.Unpack(received, dir, maxOptimized)
		received.CloseWithError(err)
		unpacked <- err
	}()
	log := &toolLog{tell: wait.tell}
	session := &execSession{env: &Env{In: sent, Out: receive, Err: log}, start: &pb.ExecStart{Workload: workload}, interactive: true}
	err := session.run(ctx, node.Workloads.Exec(ctx))
	receive.Close()
	sent.Close()
	unpackErr, sendErr := <-unpacked, <-sending
	var code exitError
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.As(err, &code) && sendErr != nil && !errors.Is(sendErr, io.ErrClosedPipe):
		return sendErr // the model or the data could not be read here
	case errors.As(err, &code):
		return log.failed(int(code))
	case err != nil:
		return err
	}
	return unpackErr
}

// toolLog takes the tool's progress out of its log.
type toolLog struct {
	tell func(string)
	rest []byte // of a line that has not ended
	text []byte // what else it said, the end of it
}

// Write implements io.Writer.
func (l *toolLog) Write(p []byte) (int, error) {
	l.rest = append(l.rest, p...)
	for {
		line, rest, ok := bytes.Cut(l.rest, []byte("\n"))
		if !ok && len(l.rest) < maxToolLog {
			return len(p), nil
		}
		l.rest = rest
		if text, progress := strings.CutPrefix(string(line), optimize.ProgressMark); progress {
			l.tell(text)
			continue
		}
		l.text = append(append(l.text, line...), '\n')
		l.text = l.text[max(0, len(l.text)-maxToolLog):]
	}
}

// failed is the error of a tool that ended with an exit code.
func (l *toolLog) failed(code int) error {
	const killed = 137
	text := strings.TrimSpace(string(append(l.text, l.rest...)))
	if code == killed {
		return errors.New(cmp.Or(text, "the tool was killed") + ": it may need more memory: give more with --memory")
	}
	return errors.New(cmp.Or(printable.Lines(text), fmt.Sprintf("the tool ended with exit code %d", code)))
}

// report reads what came out, and adds what the tool cannot know.
func (z *optimization) report(ctx context.Context, node *client.Client, dir string) (*optimize.Report, error) {
	f, err := os.Open(filepath.Join(dir, "result", optimize.ReportFile))
	if err != nil {
		return nil, fmt.Errorf("the tool gave no report: %w", err)
	}
	defer f.Close()
	text, err := bounded.ReadAll(f, maxReport)
	if err != nil {
		return nil, err
	}
	r := new(optimize.Report)
	if err := json.Unmarshal(text, r); err != nil {
		return nil, fmt.Errorf("the tool's report: %w", err)
	}
	name, _, err := z.env.context()
	if err != nil {
		return nil, err
	}
	r.Target.Node, r.Created = name, time.Now().UTC().Truncate(time.Second)
	if r.Calibration != nil {
		r.Calibration.Digest = z.data
	}
	packs, err := node.Packs.List(ctx, connect.NewRequest(&pb.ListPacksRequest{}))
	if err != nil {
		return nil, err
	}
	for _, p := range packs.Msg.Packs {
		if p.Name == z.tool.Pack {
			r.Pack = p.Name + " " + p.Version + " " + p.Digest
		}
	}
	return r, nil
}

// keep puts the result, and where it comes from, in their place.
func (z *optimization) keep(ctx context.Context, dir string, r *optimize.Report) error {
	model := filepath.Join(dir, "result", optimize.ModelDir, z.request.Result)
	source, err := findModel(model)
	if err != nil {
		return fmt.Errorf("the tool gave no result: %w", err)
	}
	made, _, err := source.sum(ctx)
	if err != nil {
		return err
	}
	if made != r.Result.Digest {
		return fmt.Errorf("the result has the digest %s, the report says %s: it was changed on the way", made, r.Result.Digest)
	}
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	text = append(text, '\n')
	if z.push != nil {
		return z.pushResult(ctx, dir, source, text, r)
	}
	if err := durable.WriteFile(provenance(z.output), text, 0o644); err != nil {
		return err
	}
	written := []string{provenance(z.output)}
	place := func(from, to string) error {
		err := os.Chmod(from, 0o644)
		if err == nil {
			err = durable.Replace(from, to)
		}
		for _, file := range written {
			if err != nil {
				err = errors.Join(err, os.Remove(file))
			}
		}
		written = append(written, to)
		return err
	}
	if to := z.weights(); to != "" { // beside the model when that comes
		if err := place(strings.TrimSuffix(model, filepath.Ext(model))+".bin", to); err != nil {
			return err
		}
	}
	if err := place(model, z.output); err != nil {
		return err
	}
	fmt.Fprintf(z.env.Out, "%s created\n%s  provenance: %s\n  try: oscine serve %s\n", z.output, figures(r), provenance(z.output), z.output)
	return nil
}

func (z *optimization) pushResult(ctx context.Context, dir string, model *modelSource, text []byte, r *optimize.Report) error {
	access, err := registries(z.plainHTTP)
	if err != nil {
		return err
	}
	origin := filepath.Join(dir, "provenance.json")
	if err := os.WriteFile(origin, text, 0o600); err != nil {
		return err
	}
	files, err := model.list()
	if err != nil {
		return err
	}
	files = append(slices.Clone(files), bundle.File{Name: provenance(z.request.Result), Path: origin, Size: int64(len(text))})
	digest, err := modelpack.Push(ctx, *z.push, access, files, modelName(z.request.Result), "", func(file string, size int64, in io.ReadCloser) io.ReadCloser {
		return newReadProgress(z.env, "push "+file, size, in)
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(z.env.Out, "%s pushed\n%s  %s\n", z.push.Source(), figures(r), z.push.Pinned(digest).Source())
	return nil
}

// figures are the accuracy and the speed for people.
func figures(r *optimize.Report) string {
	var b strings.Builder
	a, s := &r.Accuracy, &r.Speed
	of := fmt.Sprintf("of %d rows of the data", a.Inputs)
	if c := r.Calibration; c != nil && c.Calibrated > 0 {
		of = fmt.Sprintf("of %d rows that were held out", a.Inputs)
	}
	if a.MadeUp {
		of = "on made-up inputs, which says little: give --calibration"
	}
	switch {
	case a.Measure == optimize.Labels:
		fmt.Fprintf(&b, "  accuracy: %s instead of %s %s\n", optimize.Percent(a.Result), optimize.Percent(a.Original), of)
	case r.Method == optimize.Quantize:
		languageAccuracy(&b, r)
	case a.Measure == optimize.Top1:
		fmt.Fprintf(&b, "  accuracy: the same class for %s %s\n", optimize.Percent(1-a.Drop), of)
	default:
		fmt.Fprintf(&b, "  accuracy: outputs differ by %s %s\n", optimize.Percent(a.Drop), of)
	}
	cpu := printable.Text(cmp.Or(r.Target.CPU, r.Target.Arch))
	if r.Method == optimize.Quantize {
		fmt.Fprintf(&b, "  speed: %s tokens per second instead of %s, of a prompt %s instead of %s, on %s\n", rate(s.ResultRun), rate(s.OriginalRun), rate(s.ResultPrompt), rate(s.OriginalPrompt), cpu)
	} else {
		fmt.Fprintf(&b, "  speed: a run takes %s instead of %s, loading %s instead of %s, on %s\n", shown(s.ResultRun), shown(s.OriginalRun), shown(s.ResultLoad), shown(s.OriginalLoad), cpu)
	}
	fmt.Fprintf(&b, "  size: %s instead of %s\n", printable.Bytes(r.Result.SizeBytes), printable.Bytes(r.Original.SizeBytes))
	return b.String()
}

// languageAccuracy writes the accuracy of a language model.
func languageAccuracy(b *strings.Builder, r *optimize.Report) {
	a := &r.Accuracy
	on := fmt.Sprintf("of %d tokens of the text", a.Inputs)
	if r.Options[optimize.OptionImatrix] != "" {
		on = fmt.Sprintf("of %d tokens that were held out", a.Inputs)
	}
	if a.MadeUp {
		on = fmt.Sprintf("of %d tokens that the original wrote itself: give a text with --calibration", a.Inputs)
	}
	b.WriteString("  accuracy: ")
	if !a.MadeUp {
		fmt.Fprintf(b, "perplexity %.4g instead of %.4g, ", a.Result, a.Original)
	}
	fmt.Fprintf(b, "the same next token for %s %s\n", optimize.Percent(a.SameTop), on)
}

// rate is how often in a second something is done that takes so long.
func rate(each time.Duration) string {
	if each <= 0 {
		return "no"
	}
	per := float64(time.Second) / float64(each)
	if per >= 100 {
		return fmt.Sprintf("%.0f", per)
	}
	return fmt.Sprintf("%.3g", per)
}

func shown(d time.Duration) string { return measured(object.Duration(d)) }
