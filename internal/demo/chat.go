package demo

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"oscine.dev/oscine/internal/pack"
	"oscine.dev/oscine/internal/printable"
	sample "oscine.dev/oscine/internal/samples"
	"oscine.dev/oscine/internal/serve/chat"
)

// What the demo asks a language model, and the name under which it is served.
const (
	Question     = "Why is the sky blue?"
	ChatModel    = "smollm2"
	answerTokens = 24
)

// ChatReport says what a language model answered, in the booted machine.
type ChatReport struct {
	Pack       PackReport `json:"pack"`
	Question   string     `json:"question"`
	Answer     string     `json:"answer"`
	Tokens     int        `json:"tokens"` // of the answer
	Prompt     int        `json:"promptTokens"`
	First      float64    `json:"firstTokenSeconds"`
	Seconds    float64    `json:"seconds"`
	CPUSeconds float64    `json:"cpuSeconds"` // of QEMU, from the upload to the answer's end
}

// chatSteps serve a language model in the machine and ask it.
func (r *run) chatSteps() []step {
	return []step{
		{"build the pack of llama.cpp", r.buildLlama, nil},
		{"serve a language model", r.serveLanguage, (*run).nodeLogs},
		{"chat with it", r.chat, (*run).nodeLogs},
	}
}

func (r *run) buildLlama(ctx context.Context) (string, error) {
	p, err := pack.Build(ctx, pack.BuildOptions{Name: "llama.cpp", Arch: r.Arch, Out: filepath.Join(r.Dir, "packs"), Source: r.Source, Log: &r.log})
	if err != nil {
		return "", err
	}
	r.llama = p.File
	r.report.Chat = &ChatReport{Pack: PackReport{Name: p.Name, Version: p.Version, Bytes: p.SizeBytes, Digest: p.Digest}, Question: Question}
	return fmt.Sprintf("%s, %s", p.File, printable.Bytes(p.SizeBytes)), nil
}

func (r *run) serveLanguage(ctx context.Context) (string, error) {
	file, err := sample.SmolLM2(ctx, true, &r.log)
	if err != nil {
		return "", err
	}
	began, err := r.machine.CPUTime()
	if err != nil {
		return "", err
	}
	r.report.Chat.CPUSeconds = -seconds(began)
	if err := r.Tools.Install(ctx, r.node, r.llama); err != nil {
		return "", err
	}
	status, err := r.Tools.ServeLanguage(ctx, r.node, file, ChatModel)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s by %s on CPUs %s", ChatModel, status.Engine, status.CPUs()), nil
}

func (r *run) chat(ctx context.Context) (string, error) {
	web, url := r.node.HTTP()
	client := &chat.Client{HTTP: web, URL: url}
	likeliest := 0.0
	a, err := client.Ask(ctx, chat.Request{
		Model: ChatModel, Messages: []chat.Message{{Role: "user", Content: Question}}, MaxTokens: answerTokens, Temperature: &likeliest,
	}, func(chat.Piece) error { return nil })
	if err != nil {
		return "", err
	}
	used, err := r.machine.CPUTime()
	if err != nil {
		return "", err
	}
	c := r.report.Chat
	c.Answer, c.Tokens, c.Prompt, c.First, c.Seconds = a.Text, a.Generated, a.Prompt, seconds(a.First), seconds(a.Took)
	c.CPUSeconds += seconds(used)
	// The words differ between CPUs, whose sums are not rounded alike.
	if len(strings.Fields(a.Text)) < answerTokens/3 {
		return "", fmt.Errorf("%q was answered with %q", Question, a.Text)
	}
	return fmt.Sprintf("%s %s (%d tokens in %.1f s)", Question, printable.Text(a.Text), a.Generated, a.Took.Seconds()), nil
}
