package channel

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"

	"oscine.dev/oscine/internal/tensor"
)

// What a worker wrote into slots is freed when it ends, except for what requests hold.
func TestRegionGivesBack(t *testing.T) {
	r, err := NewRegion(Size{Slots: 8, SlotBytes: 1 << 20, WarmSlots: 2, WarmBytes: 8192})
	if err != nil {
		t.Fatal(err)
	}
	resident := func(when string, want int64) {
		t.Helper()
		var st unix.Stat_t
		if err := unix.Fstat(int(r.fd.Fd()), &st); err != nil || st.Blocks*512 != want {
			t.Errorf("%s: %d bytes exist, %v, want %d", when, st.Blocks*512, err, want)
		}
	}
	r.populate()
	resident("warm", 2*8192)
	for i := range r.Slots {
		clear(r.Slot(i))
	}
	resident("written", 8<<20)
	for i := range r.Slots {
		r.Trim(i, 1<<20)
	}
	resident("trimmed", 2*8192)
	r.Slot(7)[0] = 1
	for i := range r.Slots - 1 {
		r.Punch(i)
	}
	resident("punched, but for one", 4096)
	if r.Slot(7)[0] != 1 {
		t.Error("the slot that was left lost its content")
	}
}

func TestRegionBounds(t *testing.T) {
	for _, size := range []Size{
		{}, {Slots: 1}, {Slots: -1, SlotBytes: 4096}, {Slots: MaxSlots + 1, SlotBytes: 4096}, {Slots: 1, SlotBytes: MaxSlotBytes + 1},
		{Slots: 1, SlotBytes: 4096, WarmSlots: 2}, {Slots: 1, SlotBytes: 4096, WarmSlots: 1, WarmBytes: 8192}, {Slots: 1, SlotBytes: 4096, WarmBytes: -4096},
	} {
		if _, err := NewRegion(size); err == nil {
			t.Errorf("%+v: no error", size)
		}
	}
}

func TestSameModel(t *testing.T) {
	first, other := bytesModel(), bytesModel()
	other.Engine, other.Threads, other.Parallel = "hostile 2", 8, 1
	if !first.SameModel(&other) {
		t.Error("another version of the engine is another model")
	}
	for name, change := range map[string]func(*Metadata){
		"fewer outputs": func(m *Metadata) { m.Outputs = nil },
		"another type":  func(m *Metadata) { m.Inputs = []tensor.Spec{{Name: "x", Type: tensor.Int8, Shape: tensor.Shape{-1}}} },
		"batches":       func(m *Metadata) { m.Batch = true },
		"no streams":    func(m *Metadata) { m.Streams = false },
		"more at once":  func(m *Metadata) { m.Parallel = 2 },
	} {
		other := bytesModel()
		change(&other)
		if first.SameModel(&other) {
			t.Errorf("%s: the same model", name)
		}
	}
}

func FuzzRun(f *testing.F) {
	f.Add(appendRun(nil, []Request{{ID: 7, Slot: 3, Within: 5, Stream: true, Shapes: []tensor.Shape{{1, 28}, {}}, Sizes: []int{28, 1}, Wanted: []int{1}}}))
	meta := bytesModel()
	region, err := NewRegion(Size{Slots: 4, SlotBytes: 8192})
	if err != nil {
		f.Fatal(err)
	}
	p := &Peer{region: region}
	f.Fuzz(func(t *testing.T, msg []byte) {
		requests, err := decodeRun(msg, nil)
		if err != nil {
			return
		}
		again, err := decodeRun(appendRun(nil, requests), nil)
		if diff := cmp.Diff(requests, again, cmpopts.EquateEmpty()); err != nil || diff != "" {
			t.Errorf("%v %s", err, diff)
		}
		for i := range requests {
			if _, end, err := p.Check(&meta, &requests[i], nil); err == nil && end > region.SlotBytes {
				t.Errorf("inputs end at %d of %d bytes", end, region.SlotBytes)
			}
		}
	})
}

func FuzzResults(f *testing.F) {
	f.Add(appendResults(nil, []Result{{ID: 1, Code: Failed, Err: "no"}, {ID: 2, Slot: 1, Shapes: []tensor.Shape{{2}}, Offsets: []int{64}, Sizes: []int{2}}}))
	f.Add(appendResults(nil, []Result{{ID: 2, Slot: 1, Code: Partial, Shapes: []tensor.Shape{{2}}, Offsets: []int{64}, Sizes: []int{2}}}))
	region, err := NewRegion(Size{Slots: 4, SlotBytes: 8192})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, msg []byte) {
		results, err := decodeResults(msg, nil)
		if err != nil {
			return
		}
		again, err := decodeResults(appendResults(nil, results), nil)
		if diff := cmp.Diff(results, again, cmpopts.EquateEmpty()); err != nil || diff != "" {
			t.Errorf("%v %s", err, diff)
		}
		// Whatever is delivered lies within its slot.
		c := &Conn{meta: bytesModel(), region: region, slots: make([]underWay, region.Slots)}
		inside := func(r *Result) {
			for i := range r.Offsets {
				_ = region.Slot(r.Slot)[r.Offsets[i]:][:r.Sizes[i]]
			}
		}
		w := &waiter{wake: make(chan struct{}, 1), requests: []Request{{Stream: true}, {}}, results: make([]Result, 2), open: 2,
			part: func(_ int, r *Result) { inside(r) }}
		c.slots[1], c.slots[2] = underWay{id: 2, w: w}, underWay{id: 3, w: w, index: 1}
		for i := range results {
			if c.deliver(&results[i]) != nil {
				return
			}
		}
		inside(&w.results[0])
		inside(&w.results[1])
	})
}

// FuzzControl feeds both ends with control messages.
func FuzzControl(f *testing.F) {
	for _, k := range []kind{helloKind, welcomeKind, loadKind, loadedKind, regionKind, mappedKind, figuresKind} {
		msg, err := encode(k, loadedMessage{Metadata: bytesModel()})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(msg)
	}
	f.Add([]byte("\x01{\"versions\":[2,1]}"))
	f.Fuzz(func(t *testing.T, msg []byte) {
		var hello helloMessage
		if decode(msg, helloKind, &hello) == nil {
			if v, err := negotiate(hello.Versions); err == nil && v != Version {
				t.Errorf("agreed on version %d", v)
			}
		}
		var loaded loadedMessage
		if decode(msg, loadedKind, &loaded) == nil && loaded.check() == nil {
			_ = loaded.SameModel(&loaded.Metadata)
		}
		p := &Peer{}
		if p.takeRegion(msg, nil) == nil {
			t.Error("a region without a descriptor")
		}
		_ = decode(msg, loadKind, new(Load))
		_ = decode(msg, figuresKind, new(Statistics))
		_ = decode(msg, welcomeKind, new(welcomeMessage))
		_ = decode(msg, mappedKind, new(errorMessage))
	})
}
