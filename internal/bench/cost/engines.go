package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"text/tabwriter"

	"oscine.dev/oscine/internal/serve/engine/modeltest"
	"oscine.dev/oscine/internal/serve/oip"
	"oscine.dev/oscine/internal/tensor"
)

// engineModel is a model with which an engine is measured.
type engineModel struct {
	engine  string
	model   string // of modeltest; "" where file says it
	file    string
	options map[string]string // what the format does not tell
}

func engineModels() []engineModel {
	const engines = "internal/serve/engine/"
	net := map[string]string{"inputs": "picture:FP32[-1,3,16,16]", "outputs": "answer:FP32[-1,4] seen:FP32[-1,8]"}
	return []engineModel{
		{engine: onnxName, model: modeltest.BasicPitchONNX},
		{engine: "openvino", model: modeltest.BasicPitchONNX},
		{engine: "litert", model: modeltest.Hand},
		{engine: "tensorflow", model: modeltest.BasicPitchSavedModel},
		{engine: "pytorch", file: engines + "pytorch/testdata/net.ts", options: net},
		{engine: "executorch", file: engines + "executorch/testdata/net.pte"},
	}
}

// name is that under which the model is served.
func (m engineModel) name() string {
	return m.engine + "." + cmp.Or(m.model, filepath.Base(m.file))
}

func (m engineModel) subject(ctx context.Context, progress io.Writer) (s subject, err error) {
	s = subject{engine: m.engine, file: m.file, options: m.options}
	if m.model != "" {
		if s.file, err = modeltest.Find(ctx, m.model, true, progress); err != nil {
			return s, err
		}
	}
	s.library, err = libraryOf(ctx, m.engine, progress)
	return s, err
}

// startEngines starts each engine alone and in a worker, and adds both. What cannot
// be had is named and left out.
func (b *bench) startEngines() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	for _, m := range engineModels() {
		b.say("%s", m.name())
		if err := b.startEngine(self, m); err != nil {
			if b.ctx.Err() != nil {
				return err
			}
			b.absent = append(b.absent, fmt.Sprintf("%s: %v", m.engine, err))
		}
	}
	return nil
}

func (b *bench) startEngine(self string, m engineModel) error {
	what, err := m.subject(b.ctx, b.progress)
	if err != nil {
		return err
	}
	alone, err := b.start(self, "raw")
	if err != nil {
		return err
	}
	text, err := alone.ask("open " + what.String())
	if err != nil {
		return err
	}
	if _, err := alone.ask("raw " + what.String() + " 1 1"); err != nil {
		return err
	}
	load := cpu(alone.tree()) // all since its start
	var specs []tensor.Spec
	if err := json.Unmarshal([]byte(text), &specs); err != nil {
		return err
	}
	in, err := inputFor(specs)
	if err != nil {
		return err
	}
	name, socket := m.name(), filepath.Join(b.dir, "front.sock")
	before := cpu(b.front.tree())
	if _, err := b.front.ask("serve " + name + " " + what.String()); err != nil {
		return err
	}
	if _, err := b.front.ask("core " + name + " 1"); err != nil {
		return err
	}
	cold := cpu(b.front.tree()) - before
	r, err := requestOf(name, in, oip.EncodeBinary)
	if err != nil {
		return err
	}
	served, err := clients(1, func() (client, error) { return dial("unix", socket, r) })
	if err != nil {
		return err
	}
	b.figures[aloneFigure(name)], b.figures[coldFigure(name)] = float64(load.Microseconds()), float64(cold.Microseconds())
	b.add(target{rawFigure(name), alone, asking(alone, "raw "+what.String()+" 1"), 1})
	b.add(target{hopFigure(name), b.front, asking(b.front, "core "+name), 1})
	b.add(target{unixFigure(name), b.front, served.run, 1})
	return nil
}

func (b *bench) printEngines(out io.Writer) {
	f, w := b.figures, tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "processor time of one inference, one client\tengine alone µs\tqueue and worker µs\tof alone\tUnix socket µs\tof alone\n")
	for _, m := range engineModels() {
		name := m.name()
		if alone, ok := f[rawFigure(name)]; ok {
			hop, unix := f[hopFigure(name)], f[unixFigure(name)]
			fmt.Fprintf(w, "%s, %s\t%.0f\t%.0f\t%.2f\t%.0f\t%.2f\n", m.engine, filepath.Base(cmp.Or(m.model, m.file)), alone, hop, hop/alone, unix, unix/alone)
		}
	}
	fmt.Fprintf(w, "\nfrom no process to the first answer\tengine alone ms\tworker ms\tof alone\tgoal\n")
	for _, m := range engineModels() {
		if alone, ok := f[aloneFigure(m.name())]; ok {
			cold := f[coldFigure(m.name())]
			fmt.Fprintf(w, "%s\t%.0f\t%.0f\t%.2f\t1.30\n", m.engine, alone/1000, cold/1000, cold/alone)
		}
	}
	_ = w.Flush()
}
