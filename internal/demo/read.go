package demo

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"image/png"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"

	pb "oscine.dev/oscine/internal/api/oscinepb"
	"oscine.dev/oscine/internal/client"
	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/printable"
	"oscine.dev/oscine/internal/serve/oip"
	"oscine.dev/oscine/internal/serve/picture"
	"oscine.dev/oscine/internal/tensor"
)

// samples is how many pictures are kept as files to try by hand.
const samples = 10

// input is a picture as the model wants it.
type input struct {
	Picture
	data  []byte
	shape tensor.Shape
}

// modelInput is what the digit reader takes.
var modelInput = tensor.Spec{Name: "image", Type: tensor.FP32, Shape: tensor.Shape{-1, 1, 28, 28}}

// drawPictures draws the pictures and keeps some as files.
func (r *run) drawPictures(ctx context.Context) (string, error) {
	fonts, err := UnseenFonts(ctx, &r.log)
	if err != nil {
		return "", err
	}
	pictures, err := Draw(r.Count, fonts, Seed)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(r.dir(), "pictures")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	for i, p := range pictures {
		in := input{Picture: p}
		if in.data, in.shape, err = picture.Tensor(p.Image, modelInput); err != nil {
			return "", err
		}
		r.inputs = append(r.inputs, in)
		if i < samples {
			if err := writePNG(filepath.Join(dir, fmt.Sprintf("%d-%s.png", p.Digit, strings.ReplaceAll(p.Font, " ", "-"))), p); err != nil {
				return "", err
			}
		}
	}
	r.report.Fonts = len(fonts)
	return fmt.Sprintf("%d pictures in %d fonts that training never saw", len(pictures), len(fonts)), nil
}

func writePNG(file string, p Picture) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	return errors.Join(png.Encode(f, p.Image), f.Close())
}

func (r *run) installPack(ctx context.Context) (string, error) {
	return r.report.Pack.Digest, r.Tools.Install(ctx, r.node, r.pack)
}

func (r *run) serveModel(ctx context.Context) (string, error) {
	file := filepath.Join(r.Source, "models", Model, Model+".onnx")
	status, err := r.Tools.Serve(ctx, r.node, file, Model)
	if err != nil {
		return "", err
	}
	if p := status.Placement; p != nil {
		r.report.Placement = PlacementReport{CPUs: p.CPUs, Reason: p.Reason}
	}
	r.report.Engine = status.Engine
	return fmt.Sprintf("%s by %s on CPUs %s", Model, status.Engine, status.CPUs()), nil
}

// readDigits sends all pictures, one after the other, and counts.
func (r *run) readDigits(ctx context.Context) (string, error) {
	web, url := r.node.HTTP()
	server := &oip.Client{HTTP: web, URL: url}
	var took []time.Duration
	right := 0
	for i, in := range r.inputs {
		began := time.Now()
		outputs, err := server.Infer(ctx, Model, oip.Tensor{Spec: tensor.Spec{Name: modelInput.Name, Type: modelInput.Type, Shape: in.shape}, Data: in.data})
		if err != nil {
			return "", fmt.Errorf("picture %d: %w", i, err)
		}
		took = append(took, time.Since(began))
		if i == 0 {
			used, err := r.machine.CPUTime()
			if err != nil {
				return "", err
			}
			r.report.FirstAnswer = Moment{Seconds: seconds(time.Since(r.machine.Started())), CPUSeconds: seconds(used)}
		}
		if likeliest(outputs[0].Data) == in.Digit {
			right++
		}
	}
	slices.Sort(took)
	r.report.Pictures, r.report.Right = len(r.inputs), right
	r.report.Accuracy = float64(right) / float64(len(r.inputs))
	r.report.Client = Latency{P50: millis(quantile(took, 0.5)), P99: millis(quantile(took, 0.99))}
	return fmt.Sprintf("%d of %d right (%.1f %%), p50 %.1f ms, p99 %.1f ms", right, len(r.inputs), 100*r.report.Accuracy, r.report.Client.P50, r.report.Client.P99), nil
}

// likeliest is the place of the largest FP32 number.
func likeliest(raw []byte) int {
	best, top := -1, float32(math.Inf(-1))
	for i := 0; 4*i+4 <= len(raw); i++ {
		if v := math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:])); v > top {
			best, top = i, v
		}
	}
	return best
}

func quantile(sorted []time.Duration, q float64) time.Duration {
	return sorted[int(math.Ceil(q*float64(len(sorted))))-1]
}

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// askNode reads what the node says of itself and of the model.
func (r *run) askNode(ctx context.Context) (string, error) {
	info, err := r.info(ctx)
	if err != nil {
		return "", err
	}
	r.report.SystemMemoryBytes = info.SystemMemoryBytes
	for _, p := range info.Processes {
		r.report.Processes = append(r.report.Processes, ProcessReport{Name: p.Name, Bytes: p.Bytes})
	}
	resp, err := r.node.Objects.Get(ctx, connect.NewRequest(&pb.GetRequest{Kind: string(object.KindModel), Name: Model}))
	if err != nil {
		return "", err
	}
	if len(resp.Msg.Objects) == 1 {
		state, err := client.State(object.Kinds(), resp.Msg.Objects[0])
		if err != nil {
			return "", err
		}
		if st, ok := state.Status.(*object.ModelStatus); ok {
			r.report.Node = Latency{P50: millis(st.P50.Std()), P99: millis(st.P99.Std())}
		}
	}
	return fmt.Sprintf("the system's own processes use %s", printable.Bytes(info.SystemMemoryBytes)), nil
}
