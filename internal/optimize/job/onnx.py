"""Makes an optimised ONNX model with ONNX Runtime's own tools.

The first argument is a file of JSON that says what to do; a line on standard output
says how far it is, and the last one is JSON with the options that were used. What a
person can act on is one line on standard error and exit status 3.
"""

import json
import os
import sys

LARGEST = 2**31 - 2**20  # bytes of a protobuf message


def refuse(text):
    print(text, file=sys.stderr)
    sys.exit(3)


def say(text):
    print(text, flush=True)


def main():
    with open(sys.argv[1]) as f:
        request = json.load(f)
    source, result, method = request["model"], request["result"], request["method"]
    say("reading the model")
    import onnx
    import onnxruntime

    onnxruntime.set_default_logger_severity(3)
    if sum(os.path.getsize(os.path.join(at, name)) for at, _, names in os.walk(os.path.dirname(source)) for name in names) > LARGEST:
        refuse("the model has more than 2 GiB: models of that size are not optimised yet")
    try:
        model = onnx.load(source)
    except Exception as e:
        refuse(f"it cannot be read as ONNX: {e}")
    if method == "graph":
        options = graph(onnxruntime, source, result)
    else:
        options = int8(onnx, onnxruntime, model, result, method == "int8-static", request)
    print(json.dumps({"tool": "onnxruntime " + onnxruntime.__version__, "options": options}))


def graph(onnxruntime, source, result):
    """Stores what the engine would do to the graph at each load, for this CPU."""
    say("optimising the graph")
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.optimized_model_filepath = result
    onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    return {"graph_optimization_level": "all"}


QUANTISED = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "ConvInteger", "MatMulInteger", "DynamicQuantizeMatMul", "MatMulNBits")


def quantised(model):
    return sum(n.op_type in QUANTISED or n.op_type.startswith(("QLinear", "QGemm", "QAttention", "DynamicQuantize")) for n in model.graph.node)


def opset(model):
    return next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)


def int8(onnx, onnxruntime, model, result, static, request):
    if quantised(model):
        refuse("the model is quantised already: give the one that it was made from")
    import onnx.version_converter
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_dynamic, quantize_static
    from onnxruntime.quantization.registry import IntegerOpsRegistry
    from onnxruntime.quantization.shape_inference import quant_pre_process

    say("preparing the model")
    per_channel = opset(model) >= 13
    if not per_channel:  # a scale for each channel needs opset 13
        try:
            model = onnx.version_converter.convert_version(model, 13)
            per_channel = True
        except Exception as e:
            say(f"it stays at opset {opset(model)}: {e}".splitlines()[0])
    plain, prepared = (os.path.join(request["work"], name) for name in ("plain.onnx", "prepared.onnx"))
    onnx.save(model, plain)
    for without in (False, True):
        try:
            # Symbolic shapes are for what ONNX's own inference leaves open, and need sympy.
            quant_pre_process(plain, prepared, skip_optimization=without, skip_symbolic_shape=True)
            break
        except Exception as e:
            say(f"preparing it fails: {e}".splitlines()[0])
    else:
        prepared = plain
    options = {"reduce_range": request["cpu"]["reduceRange"], "weight_type": "QInt8"}
    given = dict(reduce_range=request["cpu"]["reduceRange"], weight_type=QuantType.QInt8)
    if static:
        options.update(activation_type=request["cpu"]["activation"], quant_format="QDQ", calibrate_method="MinMax")
        given.update(activation_type=QuantType[request["cpu"]["activation"]], quant_format=QuantFormat.QDQ)
    for channels in (True, False) if per_channel else (False,):
        options["per_channel"] = channels
        if static:
            quantize_static(prepared, result, Reader(request["inputs"], request["samples"]), per_channel=channels, **given)
        else:
            say("quantising the weights")
            # Convolutions whose ranges are found anew in each run become several times slower.
            kinds = [kind for kind in IntegerOpsRegistry if kind != "Conv"]
            quantize_dynamic(prepared, result, op_types_to_quantize=kinds, per_channel=channels, **given)
        try:
            onnxruntime.InferenceSession(result, providers=["CPUExecutionProvider"])
            break
        except Exception as e:
            if not channels:
                refuse(f"ONNX Runtime's tools made a model that it refuses itself: {e}".splitlines()[0])
            say("a scale for each channel makes no sound model; once more with one for each tensor")
    made = onnx.load(result)
    if not quantised(made):
        refuse("the model has no operator that can be quantised" + ("" if static else " without --calibration"))
    options["opset"] = opset(made)
    return {name: str(value) for name, value in options.items()}


class Reader:
    """Gives the tool one sample after the other, from files."""

    def __init__(self, inputs, samples):
        self.inputs, self.samples, self.at = inputs, samples, 0

    def get_next(self):
        import numpy

        if self.at == len(self.samples):
            say("quantising weights and activations")
            return None
        files = self.samples[self.at]
        self.at += 1
        say(f"calibrating: {self.at} of {len(self.samples)}")
        return {name: numpy.load(file, allow_pickle=False) for name, file in zip(self.inputs, files)}

    def __iter__(self):
        return iter(self.get_next, None)


main()
