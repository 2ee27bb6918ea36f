package main

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"

	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/serve/trial"
)

// network is one with made-up weights, large enough for a GPU to matter.
type network struct {
	name  string
	write func(*graph)
}

func nets() []network {
	return []network{
		{"convolutions", func(g *graph) {
			g.input("batch", 3, 224, 224)
			g.convolution(3, 64, 7, 2)
			for range 8 {
				g.convolution(64, 64, 3, 1)
			}
			g.node("GlobalAveragePool")
			g.node("Flatten")
			g.dense(64, 1000)
		}},
		{"products", func(g *graph) {
			const width = 4096
			g.input("batch", width)
			for range 4 {
				g.dense(width, width)
				g.node("Relu")
			}
		}},
	}
}

// compare has the node measure the engines on CPU and GPU, and checks that their
// answers agree.
func (c *check) compare(n *network) error {
	file := filepath.Join(c.node.dir, n.name+".onnx")
	if err := n.save(file); err != nil {
		return err
	}
	defer os.Remove(file)
	cpus := strconv.Itoa(max(1, runtime.NumCPU()/2))
	_, _, err := c.oscine("serve", file, "--name", n.name, "--cpu", cpus, "--memory", "3Gi", "--device", `device.driver == "gpu.nvidia.com"`)
	defer func() { _, _, _ = c.oscine("delete", "model", n.name) }()
	if err != nil {
		return errors.Join(err, c.logs(n.name))
	}
	text, _, err := c.oscine("get", "model", n.name, "-o", "json")
	if err != nil {
		return err
	}
	var list []struct{ Status object.ModelStatus }
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		return fmt.Errorf("the status of model %s: %w", n.name, err)
	}
	if len(list) != 1 {
		return fmt.Errorf("the status of %d models, want that of %s", len(list), n.name)
	}
	got := list[0]
	table, _, err := c.oscine("model", "explain", n.name)
	if err != nil {
		return err
	}
	for line := range strings.Lines(table) {
		c.say("%s", strings.TrimRight(line, "\n"))
	}
	c.say("served by %s, on %s threads", got.Status.Engine, cpus)
	for _, t := range got.Status.Candidates {
		if t.Difference == nil || *t.Difference > trial.Spread {
			return fmt.Errorf("%s: %s", t.Pack, t.Reason)
		}
	}
	if len(got.Status.Candidates) != 2 {
		return fmt.Errorf("%d engines were measured, want 2", len(got.Status.Candidates))
	}
	return c.loads()
}

// logs is the worker's log as an error.
func (c *check) logs(name string) error {
	text, _, err := c.oscine("logs", "model", name)
	return errors.Join(errors.New("the worker's log:\n"+text), err)
}

// graph writes an ONNX model (onnx.proto): one chain of nodes.
type graph struct {
	body    []byte // fields of GraphProto
	last    string // the value that the last node made
	count   int
	weights uint32
}

func field(b []byte, n protowire.Number, content []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, n, protowire.BytesType), content)
}

func text(b []byte, n protowire.Number, s string) []byte { return field(b, n, []byte(s)) }

func number(b []byte, n protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, n, protowire.VarintType), v)
}

// value is a ValueInfoProto of floats; the first dimension is open.
func value(name string, open string, dims ...uint64) []byte {
	shape := field(nil, 1, text(nil, 2, open))
	for _, d := range dims {
		shape = field(shape, 1, number(nil, 1, d))
	}
	tensor := field(number(nil, 1, 1), 2, shape)
	return field(text(nil, 1, name), 2, field(nil, 1, tensor))
}

func (g *graph) input(open string, dims ...uint64) {
	g.last = "x"
	g.body = field(g.body, 11, value(g.last, open, dims...))
}

// attribute is a list of numbers of a node.
func attribute(name string, values ...uint64) []byte {
	a := text(nil, 1, name)
	for _, v := range values {
		a = number(a, 8, v)
	}
	return number(a, 20, 7) // INTS
}

func (g *graph) node(kind string, more ...[]byte) {
	g.count++
	n := text(nil, 1, g.last)
	for _, m := range more {
		n = append(n, m...)
	}
	g.last = fmt.Sprint("v", g.count)
	n = text(text(n, 2, g.last), 4, kind)
	g.body = field(g.body, 1, n)
}

// weight adds a tensor of made-up numbers and returns its use as an input.
func (g *graph) weight(scale float64, dims ...uint64) []byte {
	size := uint64(1)
	t := []byte{}
	for _, d := range dims {
		t, size = number(t, 1, d), size*d
	}
	name := fmt.Sprint("w", g.count, "_", len(dims))
	raw := make([]byte, 0, 4*size)
	for range size {
		g.weights = g.weights*1664525 + 1013904223 // Numerical Recipes
		raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(float32((float64(g.weights)/(1<<31)-1)*scale)))
	}
	t = field(text(number(t, 2, 1), 8, name), 9, raw)
	g.body = field(g.body, 5, t)
	return text(nil, 1, name)
}

func (g *graph) convolution(from, to, size, stride uint64) {
	scale := math.Sqrt(6 / float64(from*size*size))
	w := g.weight(scale, to, from, size, size)
	pad := size / 2
	g.node("Conv", w, field(nil, 5, attribute("pads", pad, pad, pad, pad)), field(nil, 5, attribute("strides", stride, stride)))
	g.node("Relu")
}

func (g *graph) dense(from, to uint64) {
	g.node("MatMul", g.weight(math.Sqrt(6/float64(from)), from, to))
}

// save writes the model.
func (n *network) save(file string) (err error) {
	g := &graph{weights: 7}
	n.write(g)
	g.node("Identity")
	g.body = field(g.body, 12, field(text(nil, 1, g.last), 2, field(nil, 1, number(nil, 1, 1))))
	g.body = text(g.body, 2, n.name)
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	w := bufio.NewWriter(f)
	head := field(number(nil, 1, 8), 8, number(text(nil, 1, ""), 2, 13)) // IR version, operator set
	head = protowire.AppendVarint(protowire.AppendTag(head, 7, protowire.BytesType), uint64(len(g.body)))
	_, err = w.Write(append(head, g.body...))
	return errors.Join(err, w.Flush())
}
