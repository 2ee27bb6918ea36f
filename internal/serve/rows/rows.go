package rows

import (
	"fmt"
	"io"
	"os"
)

// maxOpset is the last version of the standard operators whose definitions this
// package follows.
const maxOpset = 24

// Error says why the rows of a model could not be proven independent. Requests
// to such a model are computed one at a time.
type Error struct{ Reason string }

func (e *Error) Error() string { return "rows are not proven independent: " + e.Reason }

func unproven(format string, args ...any) error {
	return &Error{Reason: fmt.Sprintf(format, args...)}
}

// IndependentFile says why requests to the model may not be joined into batches, or
// returns nil: see Independent.
func IndependentFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	return Independent(f, info.Size())
}

// Independent returns nil where it has proven that row i of each output of the
// ONNX model depends on row i of the inputs alone, rows being counted by the
// first dimension of all inputs and outputs. Otherwise its error is an *Error, or
// says what of the file cannot be read. Weights are not read.
func Independent(r io.ReaderAt, size int64) error {
	g, err := parse(&file{r: r, size: size})
	if err != nil {
		return err
	}
	if v, ok := g.opsets[""]; ok && (v < 1 || v > maxOpset) {
		return unproven("its operators are of version %d, and this node knows them up to %d", v, maxOpset)
	}
	values, err := g.start()
	if err != nil {
		return err
	}
	for i := range g.nodes {
		if err := g.follow(&g.nodes[i], values); err != nil {
			return err
		}
	}
	if len(g.outputs) == 0 {
		return errWire
	}
	for _, name := range g.outputs {
		v := values[name]
		switch {
		case v == nil:
			return errWire
		case v.form == bad:
			return unproven("output %q: %s", name, v.why)
		case v.form != batched || v.axis != 0:
			return unproven("output %q has no row for each row of the inputs", name)
		}
	}
	return nil
}

// start returns what is known before the first operator.
func (g *graph) start() (map[string]*value, error) {
	values := map[string]*value{"": nil}
	for name, v := range g.initializers {
		values[name] = v
	}
	batch := ""
	first := true
	for _, in := range g.inputs {
		if g.initializers[in.name] != nil {
			continue // a default that no request changes
		}
		if values[in.name] != nil {
			return nil, errWire
		}
		if len(in.dims) == 0 || in.dims[0].size >= 0 {
			return nil, unproven("input %q has no open first dimension", in.name)
		}
		if !first && (batch == "" || in.dims[0].name != batch) {
			return nil, unproven("the first dimensions of its inputs are not the same")
		}
		batch, first = in.dims[0].name, false
		dims := make([]int64, len(in.dims))
		for i, d := range in.dims {
			dims[i] = max(d.size, -1)
		}
		v := inBatch(dims, 0)
		values[in.name] = &v
	}
	for _, in := range g.inputs {
		for i, d := range in.dims {
			if i > 0 && d.name != "" && d.name == batch && g.initializers[in.name] == nil {
				return nil, unproven("input %q has the batch's dimension %q twice", in.name, batch)
			}
		}
	}
	if first {
		return nil, unproven("it has no inputs")
	}
	return values, nil
}

// follow finds what is known of a node's outputs.
func (g *graph) follow(n *node, values map[string]*value) error {
	c := call{node: n, version: g.opsets[n.domain], in: make([]*value, len(n.inputs))}
	if _, told := g.opsets[n.domain]; !told && n.domain == "" {
		return unproven("it does not say which version of the operators it uses")
	}
	all := constant
	for i, name := range n.inputs {
		if name == "" {
			continue
		}
		v := values[name]
		if v == nil {
			return errWire // not in the order of its computing
		}
		c.in[i] = v
		switch {
		case v.form == bad:
			all = bad
			c.why = v.why
		case all != bad && v.form > all:
			all = v.form
		}
	}
	var out []value
	if all == bad {
		out = []value{wrong(c.why)}
	} else {
		out = c.apply(all)
	}
	for i, name := range n.outputs {
		if name == "" {
			continue
		}
		if values[name] != nil {
			return errWire // each name is given once
		}
		v := out[min(i, len(out)-1)]
		if len(v.dims) > maxRank || len(v.ints) > window {
			v = wrong("")
		}
		if v.form == bad && v.why == "" {
			v.why = fmt.Sprintf("%s is not known to treat rows independently", n)
		}
		values[name] = &v
	}
	return nil
}

// call is one operator with what is known of its inputs; nil for those left out.
type call struct {
	*node
	version int64
	in      []*value
	why     string
}

// apply applies the operator's rule. The last value counts for all outputs
// behind it.
func (c *call) apply(all form) []value {
	for _, a := range c.attributes {
		if a.other && (c.domain != "ai.onnx.ml") {
			return []value{wrong(fmt.Sprintf("%s contains a graph or another setting that is not followed", c.node))}
		}
	}
	rule := operators[key{c.domain, c.op}]
	if rule == nil || len(c.in) == 0 && c.op != "Constant" {
		return []value{wrong(fmt.Sprintf("%s is not known to treat rows independently", c.node))}
	}
	out := rule(c)
	if all != constant {
		return out
	}
	// Of constants comes a constant, whatever else the rule did not find.
	for i := range out {
		if out[i].form == bad {
			out[i] = value{form: constant}
		}
	}
	return out
}

// arg returns an input, or nil.
func (c *call) arg(i int) *value {
	if i < len(c.in) {
		return c.in[i]
	}
	return nil
}

// constants reports whether all inputs from i on are constant or left out.
func (c *call) constants(from int) bool {
	for _, v := range c.in[min(from, len(c.in)):] {
		if v != nil && v.form != constant {
			return false
		}
	}
	return true
}

// integer returns a setting, or its default.
func (c *call) integer(name string, otherwise int64) int64 {
	if a := c.attributes[name]; a != nil {
		return a.number
	}
	return otherwise
}

// text returns a setting, or its default.
func (c *call) text(name, otherwise string) string {
	if a := c.attributes[name]; a != nil {
		return a.text
	}
	return otherwise
}

// list returns a setting of integers, or an input that holds them in later
// versions. given is false when there is neither, ok when what is given is not
// known.
func (c *call) list(name string, input int) (list []int64, given, ok bool) {
	if a := c.attributes[name]; a != nil {
		return a.ints, true, true
	}
	v := c.arg(input)
	if v == nil {
		return nil, false, true
	}
	list, ok = v.numbers()
	return list, true, ok
}
