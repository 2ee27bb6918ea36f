package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/samples/synthetic"
	"oscine.dev/oscine/internal/serve/trial"
)

// network is one with made-up weights, large enough for a GPU to matter.
type network struct {
	name  string
	model func() []byte
}

func nets() []network {
	return []network{
		{"convolutions", func() []byte {
			m := synthetic.New(3, 224, 224)
			m.Convolution(3, 64, 7, 2)
			for range 8 {
				m.Convolution(64, 64, 3, 1)
			}
			m.Operator("GlobalAveragePool")
			m.Operator("Flatten")
			m.Dense(64, 1000)
			return m.Bytes(1000)
		}},
		{"products", func() []byte {
			const width = 4096
			m := synthetic.New(width)
			for range 4 {
				m.Dense(width, width)
				m.Operator("Relu")
			}
			return m.Bytes(width)
		}},
	}
}

// compare has the node measure the engines on CPU and GPU, and checks that their
// answers agree.
func (c *check) compare(n *network) error {
	file := filepath.Join(c.node.dir, n.name+".onnx")
	if err := os.WriteFile(file, n.model(), 0o600); err != nil {
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
