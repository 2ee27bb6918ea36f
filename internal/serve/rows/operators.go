package rows

// rule says what is known of an operator's outputs. A value without a reason for
// being bad gets the usual one.
type rule func(*call) []value

// key names an operator.
type key struct{ domain, op string }

// microsoft and classical are the other domains of operators.
const (
	microsoft = "com.microsoft"
	classical = "ai.onnx.ml"
)

// operators are those that are known. What mixes rows (DynamicQuantizeLinear,
// NonMaxSuppression, MeanVarianceNormalization, …), draws lots or runs a graph of
// its own is left out on purpose; what is missing otherwise may be added with a
// case in the tests.
var operators = func() map[key]rule {
	all := map[key]rule{}
	add := func(domain string, r rule, names ...string) {
		for _, name := range names {
			all[key{domain, name}] = r
		}
	}
	add("", follows, "Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "BitwiseNot", "Ceil", "Celu", "Cos", "Cosh", "Elu", "Erf", "Exp",
		"Floor", "Gelu", "HardSigmoid", "HardSwish", "IsInf", "IsNaN", "LeakyRelu", "Log", "Mish", "Neg", "Not", "Reciprocal", "Relu", "Round", "Selu",
		"Shrink", "Sigmoid", "Sign", "Sin", "Sinh", "Softplus", "Softsign", "Sqrt", "Swish", "Tan", "Tanh", "ThresholdedRelu")
	add("", scalars, "Clip")
	add("", same, "Identity")
	add("", cast, "Cast")
	add("", dropout, "Dropout")
	add("", broadcast, "And", "BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Greater", "GreaterOrEqual", "Less", "LessOrEqual",
		"Max", "Mean", "Min", "Mod", "Or", "PRelu", "Pow", "Sum", "Xor")
	add("", choose, "Where")
	add("", arithmetic, "Add", "Sub", "Mul", "Div", "Equal")
	add("", quantize, "QuantizeLinear", "DequantizeLinear")
	add("", softmax, "Softmax", "LogSoftmax", "Hardmax")
	add("", alongAxis(-1), "LpNormalization")
	add("", cumulate, "CumSum")
	add("", reduce, "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare")
	add("", extreme, "ArgMax", "ArgMin")
	add("", multiply, "MatMul")
	add("", quantizedMultiply, "MatMulInteger")
	add("", quantizedProduct, "QLinearMatMul")
	add("", gemm, "Gemm")
	add("", convolve(1), "Conv", "ConvInteger")
	add("", convolve(3), "QLinearConv")
	add("", imagesAll, "ConvTranspose", "AveragePool", "LpPool", "DepthToSpace", "SpaceToDepth")
	add("", images, "MaxPool")
	add("", global, "GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
	add("", channels, "InstanceNormalization", "GroupNormalization", "LRN")
	add("", normalize, "BatchNormalization")
	add("", layerNormalize, "LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization")
	add("", recur, "LSTM", "GRU", "RNN")
	add("", resize, "Resize", "Upsample")

	add("", constantOf, "Constant")
	add("", shapeOf, "Shape")
	add("", gather, "Gather")
	add("", gatherElements, "GatherElements")
	add("", concat, "Concat")
	add("", split, "Split")
	add("", slice, "Slice")
	add("", squeeze, "Squeeze")
	add("", unsqueeze, "Unsqueeze")
	add("", transpose, "Transpose")
	add("", flatten, "Flatten")
	add("", reshape, "Reshape")
	add("", expand, "Expand")
	add("", fill, "ConstantOfShape")
	add("", tile, "Tile")
	add("", best, "TopK")
	add("", oneHot, "OneHot")
	add("", pad, "Pad")
	add("", countUp, "Range")

	add(microsoft, follows, "Gelu", "QuickGelu", "QLinearSigmoid", "QLinearLeakyRelu")
	add(microsoft, broadcast, "BiasGelu", "FastGelu")
	add(microsoft, quantize, "QuantizeLinear", "DequantizeLinear")
	add(microsoft, quantizedPair, "QLinearAdd", "QLinearMul")
	add(microsoft, convolve(1), "FusedConv")

	add(classical, table(2), "LinearRegressor", "SVMRegressor", "TreeEnsembleRegressor", "Scaler", "Normalizer")
	add(classical, table(1, 2), "LinearClassifier", "SVMClassifier", "TreeEnsembleClassifier")
	return all
}()
