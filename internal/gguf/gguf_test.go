package gguf_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"os"
	"strings"
	"testing"

	"oscine.dev/oscine/internal/gguf"
	"oscine.dev/oscine/internal/gguf/gguftest"
)

func TestRead(t *testing.T) {
	file := gguftest.Tiny(gguftest.Options{})
	h, err := gguf.Read(bytes.NewReader(file), int64(len(file)))
	if err != nil {
		t.Fatal(err)
	}
	if h.Architecture != "llama" || h.Name != "tiny" || h.Context != 512 || h.Layers != 2 || h.Vocabulary == 0 || h.Quantized || h.Task() != gguf.Generate {
		t.Errorf("got %+v", h)
	}
	if h.TensorBytes == 0 || h.TensorBytes > int64(len(file)) {
		t.Errorf("tensors of %d bytes in a file of %d", h.TensorBytes, len(file))
	}
	if got := h.String(); !strings.HasPrefix(got, `llama, "tiny", `) {
		t.Errorf("got %s", got)
	}
}

// A file cut anywhere is refused, and one with more bytes than it needs is not.
func TestCut(t *testing.T) {
	file := gguftest.Tiny(gguftest.Options{})
	for n := 0; n < len(file); n += max(1, n/16) {
		if _, err := gguf.Read(bytes.NewReader(file[:n]), int64(n)); !errors.Is(err, gguf.ErrFile) {
			t.Fatalf("the first %d of %d bytes: got %v", n, len(file), err)
		}
	}
	if _, err := gguf.Read(bytes.NewReader(append(bytes.Clone(file), 0)), int64(len(file)+1)); err != nil {
		t.Error(err)
	}
}

// raw writes a header from its parts.
func raw(parts ...any) []byte {
	out := []byte(gguf.Magic)
	for _, part := range parts {
		switch v := part.(type) {
		case string:
			out = append(binary.LittleEndian.AppendUint64(out, uint64(len(v))), v...)
		case uint32:
			out = binary.LittleEndian.AppendUint32(out, v)
		case uint64:
			out = binary.LittleEndian.AppendUint64(out, v)
		}
	}
	return out
}

const (
	u32  = uint32(4)
	text = uint32(8)
	list = uint32(9)
	v3   = uint32(3)
	none = uint64(0)
	one  = uint64(1)
	huge = uint64(math.MaxUint64)
	arch = "general.architecture"
)

func TestLies(t *testing.T) {
	for name, test := range map[string]struct {
		file []byte
		want string
	}{
		"another format":       {[]byte("PK\x03\x04 and more of it"), `does not begin with "GGUF"`},
		"old":                  {raw(uint32(1), none, none), "version 1"},
		"big-endian":           {raw(uint32(0x03000000), none, none), "version 50331648"},
		"settings":             {raw(v3, none, huge), "announces"},
		"tensors":              {raw(v3, huge, none), "announces"},
		"key":                  {raw(v3, none, one, uint64(1<<40)), "a string of 1099511627776 bytes"},
		"value":                {raw(v3, none, one, arch, text, huge), "more than the file can hold"},
		"type":                 {raw(v3, none, one, arch, uint32(77)), "type 77"},
		"list of lists":        {raw(v3, none, one, arch, list, list, one), "type 9"},
		"list":                 {raw(v3, none, one, arch, list, u32, huge), "announces 18446744073709551615 elements"},
		"no architecture":      {raw(v3, none, none), "does not name the model's architecture"},
		"dimensions":           {raw(v3, one, one, arch, text, "llama", "t", uint32(5)), "5 dimensions"},
		"tensor of everything": {raw(v3, one, one, arch, text, "llama", "t", uint32(2), uint64(1<<39), uint64(1<<39), uint32(0), none), "a dimension of"},
		"tensor of nothing":    {raw(v3, one, one, arch, text, "llama", "t", uint32(1), none, uint32(0), none), "a dimension of 0"},
		"tensor far away":      {raw(v3, one, one, arch, text, "llama", "t", uint32(1), one, uint32(0), huge), "beyond the file's end"},
		"rows of half blocks":  {raw(v3, one, one, arch, text, "llama", "t", uint32(1), uint64(33), uint32(2), none), "blocks of 32"},
		"weights left out":     {raw(v3, one, one, arch, text, "llama", "t", uint32(1), uint64(10), uint32(0), none), "cut short"},
		"layers":               {raw(v3, none, uint64(2), arch, text, "llama", "llama.block_count", u32, uint32(1<<20)), "1048576 layers"},
		"context":              {raw(v3, none, uint64(2), arch, text, "llama", "llama.context_length", u32, uint32(1<<31)), "context_length"},
	} {
		h, err := gguf.Read(bytes.NewReader(test.file), int64(len(test.file)))
		if !errors.Is(err, gguf.ErrFile) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %+v, %v, want %s", name, h, err, test.want)
		}
	}
	if _, err := gguf.Open(t.TempDir() + "/none"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
}

func TestPlan(t *testing.T) {
	file := gguftest.Tiny(gguftest.Options{})
	h, err := gguf.Read(bytes.NewReader(file), int64(len(file)))
	if err != nil {
		t.Fatal(err)
	}
	usual, err := h.Plan(gguf.Want{})
	if err != nil || usual.Slots != 4 || usual.Context != 512 || usual.Task != gguf.Generate || usual.PromptCache != 0 {
		t.Errorf("without a limit: %+v, %v", usual, err)
	}
	// Two layers of two heads of 16 for keys and for values, in half precision.
	if want := int64(4 * 512 * 2 * 2 * 32 * 2); usual.Cache != want {
		t.Errorf("a cache of %d bytes, want %d", usual.Cache, want)
	}
	rich, err := h.Plan(gguf.Want{Memory: 1 << 30})
	if err != nil || rich.Context != 512 || rich.PromptCache == 0 || rich.PromptCache+rich.Need() > 1<<30 {
		t.Errorf("with a gigabyte: %+v, %v", rich, err)
	}
	if _, err := h.Plan(gguf.Want{Memory: 32 << 20}); err == nil || !strings.Contains(err.Error(), "give it more memory") {
		t.Errorf("with too little: %v", err)
	}
	// What fits is less than is asked for.
	asked := gguf.Want{Slots: 64, Context: 100_000, Memory: 512 << 20}
	if _, err := h.Plan(asked); err == nil || !strings.Contains(err.Error(), "64 slots of 100000 tokens") {
		t.Errorf("asked for too much: %v", err)
	}
	if _, err := h.Plan(gguf.Want{Slots: 65}); err == nil {
		t.Error("65 slots were accepted")
	}
}

// With little memory there are first fewer slots, then fewer tokens.
func TestPlanShrinks(t *testing.T) {
	file := gguftest.Tiny(gguftest.Options{Context: 8192})
	h, err := gguf.Read(bytes.NewReader(file), int64(len(file)))
	if err != nil {
		t.Fatal(err)
	}
	full, err := h.Plan(gguf.Want{Slots: 4, Context: 4096})
	if err != nil {
		t.Fatal(err)
	}
	last := gguf.Plan{Slots: 4, Context: 8192}
	for memory := full.Need() + 8<<20; ; memory -= 64 << 10 {
		p, err := h.Plan(gguf.Want{Memory: memory})
		if err != nil {
			break
		}
		if p.Need() > memory || p.Slots > last.Slots || p.Slots == last.Slots && p.Context > last.Context || p.Slots > 1 && p.Context < 4096 {
			t.Fatalf("with %d bytes: %+v after %+v", memory, p, last)
		}
		last = p
	}
	if last.Slots != 1 || last.Context != 512 {
		t.Errorf("the smallest plan is %+v, want one slot of 512 tokens", last)
	}
}

func TestTasks(t *testing.T) {
	for pooling, want := range map[uint32]gguf.Task{0: gguf.Generate, 1: gguf.Embed, 2: gguf.Embed, 4: gguf.Rerank} {
		file := gguftest.Tiny(gguftest.Options{Pooling: pooling})
		h, err := gguf.Read(bytes.NewReader(file), int64(len(file)))
		if err != nil || h.Task() != want {
			t.Errorf("pooling %d: got %v, %v, want %s", pooling, h, err, want)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add(gguftest.Tiny(gguftest.Options{})[:4<<10])
	f.Add(raw(v3, one, one, arch, text, "llama", "t", uint32(2), uint64(32), uint64(3), uint32(2), none))
	f.Fuzz(func(t *testing.T, file []byte) {
		h, err := gguf.Read(bytes.NewReader(file), int64(len(file)))
		if err != nil {
			if !errors.Is(err, gguf.ErrFile) {
				t.Errorf("the fault is the file's: %v", err)
			}
			return
		}
		for _, w := range []gguf.Want{{}, {Memory: 1 << 30}, {Slots: 64, Context: 1 << 20}} {
			if p, err := h.Plan(w); err == nil && (p.Slots < 1 || p.Context < 1 || p.Batch < 1 || p.Need() < 0) {
				t.Errorf("%+v: planned %+v", h, p)
			}
		}
	})
}
