package rows

import (
	"bytes"
	"errors"
	"math"
	"os"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
)

// Writing of models, so far as the tests need it.

func sub(number protowire.Number, parts ...[]byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(nil, number, protowire.BytesType), bytes.Join(parts, nil))
}

func text(number protowire.Number, s string) []byte { return sub(number, []byte(s)) }

func varint(number protowire.Number, n int64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(nil, number, protowire.VarintType), uint64(n))
}

// in is an input, whose dimensions are numbers or names.
func in(name string, dims ...any) []byte {
	var shape []byte
	for _, d := range dims {
		switch d := d.(type) {
		case int:
			shape = append(shape, sub(shapeDim, varint(dimValue, int64(d)))...)
		case string:
			shape = append(shape, sub(shapeDim, text(dimParam, d))...)
		}
	}
	return sub(graphInput, text(infoName, name), sub(infoType, sub(typeTensor, varint(1, typeFloat), sub(typeShape, shape))))
}

func out(name string) []byte { return sub(graphOutput, text(infoName, name)) }

// weights is a constant of floats whose values do not matter.
func weights(name string, dims ...int64) []byte {
	parts := [][]byte{text(tensorName, name), varint(tensorType, typeFloat), varint(tensorLocation, 1)}
	for _, d := range dims {
		parts = append(parts, varint(tensorDims, d))
	}
	return sub(graphInitializer, parts...)
}

// numbers is a constant vector of integers.
func numbers(name string, list ...int64) []byte {
	parts := [][]byte{text(tensorName, name), varint(tensorType, typeInt64), varint(tensorDims, int64(len(list)))}
	for _, n := range list {
		parts = append(parts, varint(tensorInt64s, n))
	}
	return sub(graphInitializer, parts...)
}

// index is a constant number.
func index(name string, n int64) []byte {
	return sub(graphInitializer, text(tensorName, name), varint(tensorType, typeInt64), varint(tensorInt64s, n))
}

func reals(name string, list ...float32) []byte {
	parts := [][]byte{text(tensorName, name), varint(tensorType, typeFloat), varint(tensorDims, int64(len(list)))}
	var raw []byte
	for _, f := range list {
		raw = protowire.AppendFixed32(raw, math.Float32bits(f))
	}
	return sub(graphInitializer, append(parts, sub(tensorRaw, raw))...)
}

func number(name string, n int64) []byte {
	return sub(nodeAttribute, text(attrName, name), varint(attrInt, n))
}

func list(name string, ns ...int64) []byte {
	parts := [][]byte{text(attrName, name)}
	for _, n := range ns {
		parts = append(parts, varint(attrInts, n))
	}
	return sub(nodeAttribute, parts...)
}

func word(name, s string) []byte {
	return sub(nodeAttribute, text(attrName, name), text(attrString, s))
}

// op writes a node from a line as "y, z = Op(a, b)"; an operator of another
// domain is written as domain:Op.
func op(line string, attributes ...[]byte) []byte {
	outs, rest, _ := strings.Cut(line, " = ")
	name, args, _ := strings.Cut(strings.TrimSuffix(rest, ")"), "(")
	var parts [][]byte
	for _, a := range strings.Split(args, ",") {
		if args != "" {
			parts = append(parts, text(nodeInput, strings.TrimSpace(a)))
		}
	}
	for _, o := range strings.Split(outs, ",") {
		parts = append(parts, text(nodeOutput, strings.TrimSpace(o)))
	}
	if domain, op, ok := strings.Cut(name, ":"); ok {
		name = op
		parts = append(parts, text(nodeDomain, domain))
	}
	return sub(graphNode, append(append(parts, text(nodeOp, name)), attributes...)...)
}

func model(opset int64, parts ...[]byte) []byte {
	return slicesJoin(sub(modelOpsets, text(opsetDomain, ""), varint(opsetVersion, opset)),
		sub(modelOpsets, text(opsetDomain, microsoft), varint(opsetVersion, 1)), sub(modelGraph, parts...))
}

func slicesJoin(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

func prove(model []byte) error {
	return Independent(bytes.NewReader(model), int64(len(model)))
}

// image, row and tokens are inputs of models for images, features and text.
var (
	image  = in("x", "N", 3, 8, 8)
	row    = in("x", "batch", 4)
	tokens = in("x", "b", "s", 16)
)

func TestIndependentRows(t *testing.T) {
	for name, m := range map[string][]byte{
		"a sum of rows and a vector":      model(17, row, weights("w", 4), op("y = Add(x, w)"), out("y")),
		"a vector for one row":            model(17, row, weights("w", 1, 4), op("y = Mul(x, w)"), out("y")),
		"layers":                          model(17, row, weights("w", 4, 8), weights("b", 8), op("h = Gemm(x, w, b)"), op("y = Relu(h)"), out("y")),
		"a matrix":                        model(17, row, weights("w", 4, 8), op("y = MatMul(x, w)"), out("y")),
		"weights turned":                  model(17, row, weights("w", 8, 4), op("v = Transpose(w)", list("perm", 1, 0)), op("y = MatMul(x, v)"), out("y")),
		"softmax over the last":           model(17, row, op("y = Softmax(x)", number("axis", -1)), out("y")),
		"old softmax":                     model(11, row, op("y = Softmax(x)", number("axis", 1)), out("y")),
		"mean over features":              model(17, row, op("y = ReduceMean(x)", list("axes", 1), number("keepdims", 0)), out("y")),
		"mean over features, as an input": model(18, row, numbers("a", -1), op("y = ReduceMean(x, a)"), out("y")),
		"a convolution":                   model(17, image, weights("w", 6, 3, 3, 3), op("c = Conv(x, w)"), op("p = GlobalAveragePool(c)"), op("y = Flatten(p)"), out("y")),
		"a pool, reshaped by its volume":  model(17, image, weights("w", 6, 3, 3, 3), numbers("s", -1, 6), op("c = Conv(x, w)"), op("p = GlobalAveragePool(c)"), op("y = Reshape(p, s)"), out("y")),
		"reshaped, rows copied":           model(17, image, numbers("s", 0, -1), op("y = Reshape(x, s)"), out("y")),
		"reshaped by Shape and Concat":    model(17, image, index("0", 0), numbers("r", -1), numbers("a", 0), op("s = Shape(x)"), op("n = Gather(s, 0)"), op("m = Unsqueeze(n, a)"), op("t = Concat(m, r)", number("axis", 0)), op("y = Reshape(x, t)"), out("y")),
		"reshaped by Shape and Slice":     model(17, image, numbers("0", 0), numbers("1", 1), numbers("r", -1), op("s = Shape(x)"), op("n = Slice(s, 0, 1)"), op("t = Concat(n, r)", number("axis", 0)), op("y = Reshape(x, t)"), out("y")),
		"attention":                       model(17, tokens, weights("w", 16, 16), numbers("s", 0, 0, 4, 4), numbers("f", 0, 0, 16), op("q = MatMul(x, w)"), op("q4 = Reshape(q, s)"), op("qt = Transpose(q4)", list("perm", 0, 2, 1, 3)), op("kt = Transpose(q4)", list("perm", 0, 2, 3, 1)), op("a = MatMul(qt, kt)"), op("p = Softmax(a)"), op("v = MatMul(p, qt)"), op("o = Transpose(v)", list("perm", 0, 2, 1, 3)), op("y = Reshape(o, f)"), out("y")),
		"two inputs of one batch":         model(17, in("x", "N", 4), in("z", "N", 4), op("y = Add(x, z)"), out("y")),
		"an embedding":                    model(17, in("x", "N", "s"), weights("t", 100, 16), op("y = Gather(t, x)"), out("y")),
		"a column":                        model(17, row, index("i", 2), op("y = Gather(x, i)", number("axis", 1)), out("y")),
		"a recurrent net":                 model(17, tokens, weights("w", 1, 64, 16), weights("r", 1, 64, 16), op("t = Transpose(x)", list("perm", 1, 0, 2)), op("s, h, c = LSTM(t, w, r)"), op("y = Squeeze(h, a)"), numbers("a", 0), out("y")),
		"rows expanded":                   model(17, in("x", "N", 4), weights("c", 1, 4), op("s = Shape(x)"), op("e = Expand(c, s)"), op("y = Add(x, e)"), out("y")),
		"zeros for each row":              model(17, row, op("s = Shape(x)"), op("z = ConstantOfShape(s)"), op("y = Add(x, z)"), out("y")),
		"images resized":                  model(17, image, reals("k", 1, 1, 2, 2), op("y = Resize(x, , k)"), out("y")),
		"statically quantised":            model(17, row, reals("s", 0.5), op("q = QuantizeLinear(x, s)"), op("y = DequantizeLinear(q, s)"), out("y")),
		"the best of each row":            model(17, row, numbers("k", 2), op("y, i = TopK(x, k)"), out("y"), out("i")),
		"a normalised layer":              model(17, tokens, weights("g", 16), weights("b", 16), op("y = LayerNormalization(x, g, b)"), out("y")),
		"a part of each row":              model(17, row, numbers("1", 1), numbers("3", 3), op("y = Slice(x, 1, 3, 1)"), out("y")),
		"classical":                       slicesJoin(sub(modelOpsets, text(opsetDomain, classical), varint(opsetVersion, 3)), model(17, row, op("l, y = ai.onnx.ml:TreeEnsembleClassifier(x)"), out("l"), out("y"))),
		"Microsoft's":                     model(17, row, weights("b", 4), op("y = com.microsoft:BiasGelu(x, b)"), out("y")),
		"a default that is also an input": model(17, row, in("w", 4), weights("w", 4), op("y = Add(x, w)"), out("y")),
		"padding beside the rows":         model(17, row, numbers("p", 0, 1, 0, 1), op("y = Pad(x, p)"), out("y")),
		"rows joined side by side":        model(17, row, op("y = Concat(x, x)", number("axis", 1)), out("y")),
		"a sum of a row over its columns": model(17, row, weights("w", 4, 1), op("p = MatMul(x, w)"), op("y = Sub(x, p)"), out("y")),
		"a number of the weights' own":    model(17, row, weights("w", 4, 4), op("m = ReduceMean(w)"), op("n = Sqrt(m)"), numbers("s", 1, 1), op("k = Reshape(n, s)"), op("y = Mul(x, k)"), out("y")),
		"quantised integers, static zero": model(17, in("x", "N", 4), weights("w", 4, 4), op("y = MatMulInteger(x, w)"), out("y")),
		"a slice that keeps all rows":     model(17, tokens, numbers("f", 0, 0), numbers("e", 1_000_000_000, 1), op("y = Slice(x, f, e)"), out("y")),
		"expanded as PyTorch writes it": model(17, row, weights("c", 1, 4), index("0", 0), index("four", 4), numbers("r", -1), numbers("u", 0), numbers("l", 2),
			op("s = Shape(x)"), op("n = Gather(s, 0)"), op("m = Unsqueeze(n, u)"), op("k = Unsqueeze(four, u)"), op("t = Concat(m, k)", number("axis", 0)),
			op("one = ConstantOfShape(l)", sub(nodeAttribute, text(attrName, "value"), sub(attrTensor, varint(tensorType, typeInt64), varint(tensorDims, 1), varint(tensorInt64s, 1)))),
			op("neg = Mul(one, r)"), op("q = Equal(t, neg)"), op("w = Where(q, one, t)"), op("e = Expand(c, w)"), op("y = Add(x, e)"), out("y")),
		"a shape by way of a scalar":        model(17, image, numbers("e"), numbers("i", 0), numbers("j", 1), numbers("r", -1), op("s = Shape(x)"), op("n = Slice(s, i, j)"), op("m = Reshape(n, e)"), op("k = Unsqueeze(m, i)"), op("t = Concat(k, r)", number("axis", 0)), op("y = Reshape(x, t)"), out("y")),
		"normalised by figures from before": model(17, image, weights("a", 3), op("y = BatchNormalization(x, a, a, a, a)"), out("y")),
	} {
		if err := prove(m); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRowsThatDependOnEachOther(t *testing.T) {
	for name, test := range map[string]struct {
		model []byte
		want  string
	}{
		"x·xᵀ":                                 {model(17, row, op("t = Transpose(x)", list("perm", 1, 0)), op("y = MatMul(x, t)"), out("y")), "MatMul"},
		"a sum over rows, subtracted":          {model(17, row, numbers("a", 0), op("s = ReduceSum(x, a)"), op("y = Sub(x, s)"), out("y")), "ReduceSum"},
		"a sum over all":                       {model(17, row, op("s = ReduceSum(x)"), op("y = Sub(x, s)"), out("y")), "ReduceSum"},
		"a dynamic scale":                      {model(17, row, weights("w", 4, 4), op("q, s, z = DynamicQuantizeLinear(x)"), op("m = MatMulInteger(q, w, z)"), op("f = Cast(m)", number("to", 1)), op("y = Mul(f, s)"), out("y")), "DynamicQuantizeLinear"},
		"softmax over rows":                    {model(17, row, op("y = Softmax(x)", number("axis", 0)), out("y")), "Softmax"},
		"old softmax over all":                 {model(11, row, op("y = Softmax(x)", number("axis", 0)), out("y")), "Softmax"},
		"a running sum of rows":                {model(17, row, index("a", 0), op("y = CumSum(x, a)"), out("y")), "CumSum"},
		"rows turned round":                    {model(17, row, numbers("f", -1), numbers("e", math.MinInt64), numbers("a", 0), numbers("s", -1), op("y = Slice(x, f, e, a, s)"), out("y")), "Slice"},
		"the first row alone":                  {model(17, row, index("i", 0), op("r = Gather(x, i)"), op("y = Add(x, r)"), out("y")), "Gather"},
		"rows in the features' place":          {model(17, in("x", "N", 4), op("y = Transpose(x)", list("perm", 1, 0)), out("y")), "no row for each row"},
		"rows against features":                {model(17, in("x", "N", 4), numbers("a", 1), op("u = Unsqueeze(x, a)"), op("y = Add(x, u)"), out("y")), "Add"},
		"rows merged with another":             {model(17, tokens, numbers("s", -1, 16), op("y = Reshape(x, s)"), out("y")), "Reshape"},
		"rows joined end to end":               {model(17, row, op("y = Concat(x, x)", number("axis", 0)), out("y")), "Concat"},
		"a constant of several rows":           {model(17, row, weights("w", 5, 4), op("y = Add(x, w)"), out("y")), "Add"},
		"a constant of who knows how many":     {model(17, row, weights("w", 5, 4), numbers("s", -1), op("v = Reshape(w, s)"), op("y = Add(x, v)"), out("y")), "Add"},
		"the number of rows as a figure":       {model(17, row, op("s = Shape(x)"), op("f = Cast(s)", number("to", 1)), index("i", 0), op("n = Gather(f, i)"), op("y = Div(x, n)"), out("y")), "Cast"},
		"rows squeezed away when there is one": {model(17, row, op("y = Squeeze(x)"), out("y")), "Squeeze"},
		"an unknown operator":                  {model(17, row, op("y = com.acme:Relu(x)"), out("y")), "com.acme"},
		"a random one":                         {model(17, row, op("r = RandomNormalLike(x)"), op("y = Add(x, r)"), out("y")), "RandomNormalLike"},
		"a constant answer":                    {model(17, row, weights("w", 4), op("y = Identity(w)"), out("y")), "no row for each row"},
		"a fixed batch":                        {model(17, in("x", 1, 4), op("y = Relu(x)"), out("y")), "no open first dimension"},
		"an input without rows":                {model(17, row, in("k"), op("y = Mul(x, k)"), out("y")), "no open first dimension"},
		"two batches":                          {model(17, in("x", "N", 4), in("z", "M", 4), op("y = Relu(x)"), out("y")), "not the same"},
		"a batch that is a width too":          {model(17, in("x", "N", "N"), op("y = Relu(x)"), out("y")), "twice"},
		"operators to come":                    {model(99, row, op("y = Relu(x)"), out("y")), "version 99"},
		"operators of their own":               {slicesJoin(model(17, row, op("y = Relu(x)"), out("y")), sub(modelFunctions)), "of its own"},
		"a pool's places":                      {model(17, image, op("y, p = MaxPool(x)"), out("y"), out("p")), "output \"p\""},
		"training":                             {model(13, image, weights("a", 3), op("y, m, v = BatchNormalization(x, a, a, a, a)"), out("y")), "BatchNormalization"},
		"one of two outputs":                   {model(17, row, op("y = Relu(x)"), op("z = ReduceMax(x)"), out("y"), out("z")), "output \"z\""},
		"images scaled with their number":      {model(17, image, reals("k", 2, 1, 1, 1), op("y = Resize(x, , k)"), out("y")), "Resize"},
		"scales for each row":                  {model(17, row, weights("s", 4), op("y = QuantizeLinear(x, s)", number("axis", 0)), out("y")), "QuantizeLinear"},
		"a shape that a row decides":           {model(17, in("x", "N", 4), in("s", "N"), op("y = Reshape(x, s)"), out("y")), "Reshape"},
		"rows through a graph":                 {model(17, row, op("y = Relu(x)", sub(nodeAttribute, text(attrName, "body"), sub(6))), out("y")), "contains a graph"},
		"a mean of group over rows":            {model(17, image, op("y = MeanVarianceNormalization(x)"), out("y")), "MeanVarianceNormalization"},
		"cropped as TensorFlow does":           {model(17, image, reals("r", 0), reals("k", 1, 1, 2, 2), op("y = Resize(x, r, k)", word("coordinate_transformation_mode", "tf_crop_and_resize")), out("y")), "Resize"},
	} {
		err := prove(test.model)
		var reason *Error
		if !errors.As(err, &reason) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want %q", name, err, test.want)
		}
	}
}

// A model is refused, not followed, where its bytes are wrong.
func TestMalformedModels(t *testing.T) {
	good := model(17, row, weights("w", 4), op("y = Add(x, w)"), out("y"))
	for name, m := range map[string][]byte{
		"nothing":                {},
		"text":                   []byte("hello, this is no model"),
		"cut short":              good[:len(good)-3],
		"two graphs":             slicesJoin(good, sub(modelGraph)),
		"a name without value":   model(17, row, op("y = Add(x, w)"), out("y")),
		"a name given twice":     model(17, row, op("y = Relu(x)"), op("y = Relu(x)"), out("y")),
		"an output from nowhere": model(17, row, out("z")),
		"no output":              model(17, row, op("y = Relu(x)")),
	} {
		if err := prove(m); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// The demo's model is joined.
func TestDigitsAreIndependent(t *testing.T) {
	f, err := os.Open("../../../models/digits/digits.onnx")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if err := Independent(f, info.Size()); err != nil {
		t.Error(err)
	}
}

// outside is a tensor whose data is in a file beside the model.
func outside(field protowire.Number, file string) []byte {
	entry := sub(tensorExternal, text(entryKey, "location"), text(entryValue, file))
	return sub(field, text(tensorName, "w"), entry, varint(tensorLocation, 1))
}

func TestExternal(t *testing.T) {
	inside := sub(graphInitializer, text(tensorName, "w"), sub(tensorExternal, text(entryKey, "location"), text(entryValue, "not used")))
	body := sub(attrGraph, outside(graphInitializer, "loop.data"), outside(graphInitializer, "w.data"))
	m := model(17, outside(graphInitializer, "w.data"), inside, outside(graphInitializer, "a/b.data"),
		sub(graphNode, sub(nodeAttribute, outside(attrTensor, "constant.data")), sub(nodeAttribute, body)),
		sub(graphSparse, outside(sparseValues, "sparse.data")))
	m = append(m, sub(modelFunctions, sub(functionNode, sub(nodeAttribute, outside(attrTensors, "function.data"))))...)
	got, err := External(bytes.NewReader(m), int64(len(m)))
	want := []string{"a/b.data", "constant.data", "function.data", "loop.data", "sparse.data", "w.data"}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v", got, err)
	}
	deep := outside(graphInitializer, "w.data")
	for range maxDepth {
		deep = sub(graphNode, sub(nodeAttribute, sub(attrGraph, deep)))
	}
	m = model(17, deep)
	if _, err := External(bytes.NewReader(m), int64(len(m))); err == nil {
		t.Error("graphs within each other have no end")
	}
}

func FuzzExternal(f *testing.F) {
	f.Add(model(17, outside(graphInitializer, "w.data")))
	f.Fuzz(func(t *testing.T, m []byte) {
		if found, _ := External(bytes.NewReader(m), int64(len(m))); len(found) > maxOutside {
			t.Errorf("%d files", len(found))
		}
	})
}

func FuzzIndependent(f *testing.F) {
	f.Add(model(17, row, weights("w", 4, 8), weights("b", 8), op("h = Gemm(x, w, b)"), op("y = Relu(h)"), out("y")))
	f.Add(model(17, image, index("0", 0), numbers("r", -1), numbers("a", 0), op("s = Shape(x)"), op("n = Gather(s, 0)"), op("m = Unsqueeze(n, a)"), op("t = Concat(m, r)", number("axis", 0)), op("y = Reshape(x, t)"), out("y")))
	f.Add(model(17, image, reals("k", 1, 1, 2, 2), op("y = Resize(x, , k)"), out("y")))
	f.Fuzz(func(t *testing.T, m []byte) { _ = prove(m) })
}
