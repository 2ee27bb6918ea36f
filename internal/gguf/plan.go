package gguf

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math/bits"
	"slices"
	"strconv"
	"strings"

	"oscine.dev/oscine/internal/printable"
)

// Task is what a model is made for.
type Task string

// The tasks.
const (
	Generate Task = "generate" // text, from text
	Embed    Task = "embed"    // vectors of texts
	Rerank   Task = "rerank"   // how well documents answer a question
)

// Task tells what the model is made for: models that pool their output make
// vectors, those that pool it to a rank compare.
func (h *Header) Task() Task {
	const rank = 4 // LLAMA_POOLING_TYPE_RANK of llama.cpp's include/llama.h
	switch h.number("pooling_type", 0) {
	case 0:
		return Generate
	case rank:
		return Rerank
	}
	return Embed
}

// Want is what somebody asks of a served model; zero values leave it to Plan.
type Want struct {
	Slots   int   // requests that are computed at once
	Context int   // tokens of one request, with its answer
	Memory  int64 // bytes that the worker may use; 0: no limit
	Task    Task
}

// Options are the names of a model's options for the engine.
func Options() []string { return []string{"context", "slots", "task"} }

// ParseWant reads a model's options for the engine; memory is what its worker may use, 0 for no
// limit. It refuses values that mean nothing, and options that there are not.
func ParseWant(options map[string]string, memory int64) (Want, error) {
	w := Want{Memory: memory}
	for _, name := range slices.Sorted(maps.Keys(options)) {
		value := options[name]
		var err error
		switch name {
		case "slots":
			w.Slots, err = positive(value)
		case "context":
			w.Context, err = positive(value)
		case "task":
			w.Task = Task(value)
			if !slices.Contains([]Task{Generate, Embed, Rerank}, w.Task) {
				err = fmt.Errorf("choose %s, %s or %s", Generate, Embed, Rerank)
			}
		default:
			err = fmt.Errorf("there is no such option; there are %s", strings.Join(Options(), ", "))
		}
		if err != nil {
			return w, fmt.Errorf("option %s=%s: %w", name, value, err)
		}
	}
	return w, nil
}

func positive(text string) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		return 0, errors.New("must be a number from 1 on")
	}
	return n, nil
}

// Plan is how a model is served, and the memory that it takes.
type Plan struct {
	Task    Task
	Slots   int
	Context int // tokens of each slot
	Batch   int // tokens that are computed at once
	// Bytes.
	Weights, Cache, Scratch int64
	PromptCache             int64 // to keep the beginnings of conversations in; part of no need
}

// Bounds and defaults of a plan.
const (
	usualSlots   = 4
	usualContext = 4096
	usualBatch   = 256
	leastContext = 512
	contextStep  = 256
	MaxSlots     = 64
	maxContext   = 1 << 22
	// base is what the server takes beside the model.
	base = 64 << 20
	// maxPromptCache bounds it as the engine does.
	maxPromptCache = 8 << 30
)

// Need is the memory of the worker in bytes.
func (p *Plan) Need() int64 { return p.Weights + p.Cache + p.Scratch + base }

// Plan decides how the model is served. What is not asked for is chosen: slots
// and context as usual where memory has no limit, else as much context as fits.
// A wish that does not fit is an error that says what would.
func (h *Header) Plan(w Want) (Plan, error) {
	if w.Slots < 0 || w.Slots > MaxSlots || w.Context < 0 || w.Context > maxContext {
		return Plan{}, fmt.Errorf("%d slots of %d tokens: choose at most %d slots and %d tokens", w.Slots, w.Context, MaxSlots, maxContext)
	}
	if w.Task == "" {
		w.Task = h.Task()
	}
	if w.Memory == 0 {
		return h.plan(w.Task, cmp.Or(w.Slots, usualSlots), cmp.Or(w.Context, min(h.trained(), usualContext))), nil
	}
	slots := []int{w.Slots}
	if w.Slots == 0 {
		slots = []int{usualSlots, 2, 1}
	}
	for _, n := range slots {
		context := w.Context
		if context == 0 {
			context = h.largestContext(w.Task, n, w.Memory)
			// Fewer requests at once are better than ones that are cut.
			if enough := min(h.trained(), usualContext); context < enough && n > 1 && w.Slots == 0 {
				continue
			}
		}
		if p := h.plan(w.Task, n, context); context > 0 && p.Need() <= w.Memory {
			p.PromptCache = min(maxPromptCache, (w.Memory-p.Need())/2)
			return p, nil
		}
	}
	least := h.plan(w.Task, cmp.Or(w.Slots, 1), cmp.Or(w.Context, min(h.trained(), leastContext)))
	return Plan{}, fmt.Errorf("it needs %s of memory for %d slots of %d tokens (weights %s, cache %s), and may use %s: give it more memory, or fewer slots or tokens",
		printable.Bytes(least.Need()), least.Slots, least.Context, printable.Bytes(least.Weights), printable.Bytes(least.Cache), printable.Bytes(w.Memory))
}

// trained is the context that the model was trained for.
func (h *Header) trained() int {
	if h.Context == 0 {
		return usualContext
	}
	return h.Context
}

func (h *Header) plan(task Task, slots, context int) Plan {
	p := Plan{Task: task, Slots: slots, Context: context, Batch: min(usualBatch, context), Weights: h.TensorBytes}
	if task != Generate {
		p.Batch = context // a text is computed as a whole
	}
	p.Cache = saturated(h.tokenBytes(), int64(slots)*int64(context)) + int64(slots)*h.stateBytes()
	// The scores of each token of a batch, and as much for what comes before.
	width := max(int64(h.Vocabulary), 4*h.number("embedding_length", 0))
	p.Scratch = 2 * saturated(4*width, int64(p.Batch))
	return p
}

// largestContext is the most tokens for each of the slots, in steps and at most
// what the model was trained for; 0: too few for anything.
func (h *Header) largestContext(task Task, slots int, memory int64) int {
	least, most := min(h.trained(), leastContext), h.trained()
	if p := h.plan(task, slots, least); p.Need() > memory {
		return 0
	}
	if p := h.plan(task, slots, most); p.Need() <= memory {
		return most
	}
	low, high := least/contextStep, most/contextStep // low fits, high+1 does not
	for low < high {
		middle := (low + high + 1) / 2
		if p := h.plan(task, slots, middle*contextStep); p.Need() <= memory {
			low = middle
		} else {
			high = middle - 1
		}
	}
	return max(low*contextStep, least)
}

// tokenBytes is what the key-value cache keeps of one token in half precision.
// Where an architecture shares or drops some of it, this is an upper bound.
func (h *Header) tokenBytes() int64 {
	heads := h.number("attention.head_count", 0)
	width := h.number("embedding_length", 0)
	var total int64
	for layer := range h.Layers {
		headCount := h.perLayer("attention.head_count", layer, heads)
		kv := h.perLayer("attention.head_count_kv", layer, headCount)
		usual := int64(0)
		if headCount > 0 {
			usual = width / headCount
		}
		total += saturated(clamp(kv), clamp(h.number("attention.key_length", usual))+clamp(h.number("attention.value_length", usual)))
	}
	return saturated(total, 2)
}

// stateBytes is what layers with a recurrent state keep of one request.
func (h *Header) stateBytes() int64 {
	perLayer := saturated(clamp(h.number("ssm.inner_size", 0)), clamp(h.number("ssm.state_size", 0))+clamp(h.number("ssm.conv_kernel", 0)))
	return saturated(4*perLayer, int64(h.Layers))
}

// clamp keeps what a file says of a size in a range in which sums stay exact.
func clamp(n int64) int64 { return min(max(n, 0), 1<<24) }

// saturated multiplies without overflow.
func saturated(a, b int64) int64 {
	const most = 1 << 56
	if a <= 0 || b <= 0 {
		return 0
	}
	high, low := bits.Mul64(uint64(a), uint64(b))
	if high > 0 || low > most {
		return most
	}
	return int64(low)
}
