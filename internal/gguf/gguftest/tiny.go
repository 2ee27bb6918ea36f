package gguftest

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
)

// Options vary a tiny model; zero values give one that chats.
type Options struct {
	Context int    // tokens that it was trained for; 0: 512
	Pooling uint32 // how its outputs are pooled; 0: not at all
}

// Sizes of the model.
const (
	width  = 32
	heads  = 2
	layers = 2
	inner  = 64
)

// words are what the model says: it never ends by itself and never says a byte
// alone, so that each token is whole text.
func words() []string {
	list := []string{}
	for _, first := range []string{"ba", "do", "fi", "gu", "ke", "lo", "mi", "nu", "po", "ra", "se", "tu"} {
		for _, second := range []string{"la", "na", "ri", "so", "ve"} {
			list = append(list, "▁"+first+second)
		}
	}
	return list
}

// template is a chat's, in the language of chat templates. It has no special
// tokens: grammars begin with the text of the prompt for an answer.
const template = `{% for m in messages %}{{ m['role'] + ': ' + (m['content'] or '') + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}`

// Tiny returns a GGUF file of a model of the architecture llama with random
// weights. The same options give the same file.
func Tiny(o Options) []byte {
	if o.Context == 0 {
		o.Context = 512
	}
	tokens, types := []string{"<unk>", "<s>", "</s>"}, []int32{2, 3, 3}
	for b := range 256 {
		tokens, types = append(tokens, fmt.Sprintf("<0x%02X>", b)), append(types, 6)
	}
	tokens, types = append(tokens, "▁"), append(types, 1) // a space
	firstWord := len(tokens)
	for _, w := range words() {
		tokens, types = append(tokens, w), append(types, 1)
	}
	var w writer
	pair := func(key string, value any) { w.pairs = append(w.pairs, setting{key, value}) }
	pair("general.architecture", "llama")
	pair("general.name", "tiny")
	pair("llama.context_length", uint32(o.Context))
	pair("llama.embedding_length", uint32(width))
	pair("llama.block_count", uint32(layers))
	pair("llama.feed_forward_length", uint32(inner))
	pair("llama.rope.dimension_count", uint32(width/heads))
	pair("llama.attention.head_count", uint32(heads))
	pair("llama.attention.head_count_kv", uint32(heads))
	pair("llama.attention.layer_norm_rms_epsilon", float32(1e-5))
	pair("llama.vocab_size", uint32(len(tokens)))
	if o.Pooling != 0 {
		pair("llama.pooling_type", o.Pooling)
	}
	pair("tokenizer.ggml.model", "llama")
	pair("tokenizer.ggml.tokens", tokens)
	pair("tokenizer.ggml.scores", make([]float32, len(tokens)))
	pair("tokenizer.ggml.token_type", types)
	pair("tokenizer.ggml.bos_token_id", uint32(1))
	pair("tokenizer.ggml.eos_token_id", uint32(2))
	pair("tokenizer.ggml.unknown_token_id", uint32(0))
	pair("tokenizer.ggml.add_space_prefix", false)
	pair("tokenizer.chat_template", template)

	random := rand.New(rand.NewPCG(0, 7))
	matrix := func(name string, columns, rows int) []float32 {
		data := make([]float32, columns*rows)
		for i := range data {
			data[i] = float32(random.NormFloat64() / math.Sqrt(float64(columns)))
		}
		w.tensors = append(w.tensors, weights{name, []int{columns, rows}, data})
		return data
	}
	norm := func(name string) {
		data := make([]float32, width)
		for i := range data {
			data[i] = 1
		}
		w.tensors = append(w.tensors, weights{name, []int{width}, data})
	}
	matrix("token_embd.weight", width, len(tokens))
	for i := range layers {
		name := func(part string) string { return fmt.Sprintf("blk.%d.%s.weight", i, part) }
		norm(name("attn_norm"))
		for _, part := range []string{"attn_q", "attn_k", "attn_v", "attn_output"} {
			matrix(name(part), width, width)
		}
		norm(name("ffn_norm"))
		matrix(name("ffn_gate"), width, inner)
		matrix(name("ffn_up"), width, inner)
		matrix(name("ffn_down"), inner, width)
	}
	norm("output_norm.weight")
	output := matrix("output.weight", width, len(tokens))
	clear(output[:firstWord*width])
	for i := firstWord * width; i < len(output); i++ {
		output[i] *= 20
	}
	return w.bytes()
}

// setting is one key and its value, weights one tensor of 32-bit floats.
type setting struct {
	key   string
	value any
}

type weights struct {
	name  string
	shape []int
	data  []float32
}

// writer writes version 3 of the format.
type writer struct {
	pairs   []setting
	tensors []weights
	out     []byte
}

const alignment = 32

func (w *writer) bytes() []byte {
	w.out = append(w.out[:0], "GGUF"...)
	w.put32(3)
	w.put64(len(w.tensors))
	w.put64(len(w.pairs))
	for _, p := range w.pairs {
		w.text(p.key)
		w.value(p.value)
	}
	at := 0
	for _, t := range w.tensors {
		w.text(t.name)
		w.put32(uint32(len(t.shape)))
		for _, d := range t.shape {
			w.put64(d)
		}
		w.put32(0) // 32-bit floats
		w.put64(at)
		at += (4*len(t.data) + alignment - 1) / alignment * alignment
	}
	for _, t := range w.tensors {
		w.align()
		for _, v := range t.data {
			w.put32(math.Float32bits(v))
		}
	}
	w.align()
	return w.out
}

func (w *writer) align() {
	for len(w.out)%alignment != 0 {
		w.out = append(w.out, 0)
	}
}

func (w *writer) put32(v uint32) { w.out = binary.LittleEndian.AppendUint32(w.out, v) }
func (w *writer) put64(v int)    { w.out = binary.LittleEndian.AppendUint64(w.out, uint64(v)) }

func (w *writer) text(s string) {
	w.put64(len(s))
	w.out = append(w.out, s...)
}

func (w *writer) value(v any) {
	list := func(kind uint32, n int) {
		w.put32(9)
		w.put32(kind)
		w.put64(n)
	}
	switch v := v.(type) {
	case uint32:
		w.put32(4)
		w.put32(v)
	case float32:
		w.put32(6)
		w.put32(math.Float32bits(v))
	case bool:
		w.put32(7)
		w.out = append(w.out, map[bool]byte{true: 1}[v])
	case string:
		w.put32(8)
		w.text(v)
	case []string:
		list(8, len(v))
		for _, s := range v {
			w.text(s)
		}
	case []float32:
		list(6, len(v))
		for _, f := range v {
			w.put32(math.Float32bits(f))
		}
	case []int32:
		list(5, len(v))
		for _, n := range v {
			w.put32(uint32(n))
		}
	}
}
