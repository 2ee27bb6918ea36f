package main

import (
	"errors"
	"fmt"
	"regexp"
	"runtime"
	"strconv"
	"strings"

	"oscine.dev/oscine/internal/hardware"
	"oscine.dev/oscine/internal/printable"
)

// counted is what oscine chat -v prints of an answer.
var counted = regexp.MustCompile(`\((\d+) tokens read, (\d+) written, the first after ([0-9.]+) s, all in ([0-9.]+) s\)`)

// language measures a language model's tokens per second on the CPU and the GPU.
func (c *check) language() error {
	for _, engine := range []string{"llama.cpp", "llama.cpp-vulkan"} {
		if err := c.talk(engine); err != nil {
			return fmt.Errorf("%s: %w", engine, err)
		}
	}
	return nil
}

func (c *check) talk(engine string) error {
	const name = "language"
	args := []string{"serve", c.gguf, "--name", name, "--engine", engine, "--cpu", strconv.Itoa(max(1, runtime.NumCPU()/2)), "--memory", "3Gi", "--option", "slots=1", "--option", "context=2048"}
	if engine != "llama.cpp" {
		args = append(args, "--device", `device.driver == "gpu.nvidia.com"`)
	}
	out, _, err := c.oscine(args...)
	defer func() { _, _, _ = c.oscine("delete", "model", name) }()
	if err != nil {
		return errors.Join(err, c.logs(name))
	}
	first, _, _ := strings.Cut(out, "\n")
	c.say("%s", first)
	var answer string
	for range 2 { // the first one prepares the GPU
		var said string
		if answer, said, err = c.oscine("chat", name, "Tell me a long story about an orchestra that learns to play on the moon.", "-v", "--max-tokens", "512", "--temperature", "0", "--seed", "1"); err != nil {
			return errors.Join(err, c.logs(name))
		}
		m := counted.FindStringSubmatch(said)
		if m == nil {
			return fmt.Errorf("oscine chat printed no figures: %s", said)
		}
		tokens, _ := strconv.ParseFloat(m[2], 64)
		begin, _ := strconv.ParseFloat(m[3], 64)
		all, _ := strconv.ParseFloat(m[4], 64)
		c.say("%s: %s read, %s written, the first after %s s: %.0f tokens per second after it", engine, m[1], m[2], m[3], (tokens-1)/(all-begin))
	}
	c.say("answer: %.90q…", answer)
	return c.loads()
}

// loads tells how busy the GPUs are.
func (c *check) loads() error {
	m, drivers, err := c.probe()
	if err != nil {
		return err
	}
	for id, load := range hardware.AskLoads(c.ctx, m, drivers) {
		c.say("%s: %s used while the model is served", id, printable.Bytes(int64(load.Used)))
	}
	return nil
}
