package isolate

import "oscine.dev/oscine/internal/hardware"

// homes remembers where interrupts and kernel threads ran before they were
// moved, so that they return there and nowhere else when CPUs are free again.
type homes struct {
	of map[string]home
	// shrunk is where new interrupts went when the first CPUs were reserved, if
	// an earlier process had reserved some: what runs there ran everywhere.
	shrunk hardware.Set
}

// home is where something ran by its own choice, and where it was sent.
type home struct{ own, sent hardware.Set }

// begin notes where new interrupts go when the first CPUs are reserved.
func (h *homes) begin(defaults, online hardware.Set) {
	h.of, h.shrunk = map[string]home{}, hardware.Set{}
	if !online.Minus(defaults).Empty() {
		h.shrunk = defaults.And(online)
	}
}

// nextOfKernel is next for what the kernel itself moves off isolated CPUs too:
// less than it was sent to is not somebody's choice.
func (h *homes) nextOfKernel(name string, now, reserved, online hardware.Set) hardware.Set {
	if known, ok := h.of[name]; ok && now.And(online).Minus(known.own).Empty() {
		now = known.sent
	}
	return h.next(name, now, reserved, online)
}

// next returns where something that may run on now is to run while CPUs are
// reserved. What others have moved meanwhile keeps their choice.
func (h *homes) next(name string, now, reserved, online hardware.Set) hardware.Set {
	known, ok := h.of[name]
	switch {
	case !ok && !h.shrunk.Empty() && now.And(online).Equal(h.shrunk):
		known.own = online
	case !ok || !known.sent.And(online).Equal(now.And(online)):
		known.own = now
	}
	known.sent = known.own.Minus(reserved)
	if known.sent.And(online).Empty() {
		known.sent = online.Minus(reserved)
	}
	if h.of == nil {
		h.of = map[string]home{}
	}
	h.of[name] = known
	return known.sent
}

// end forgets all, once no CPU is reserved any more.
func (h *homes) end() { h.of, h.shrunk = nil, hardware.Set{} }
