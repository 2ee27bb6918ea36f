"""Runs a model by an engine's own Python API and writes its outputs, one after
the other in the order of their names, as the test computes them through the
product's bindings. Arguments: engine, model, file for the outputs, then
NAME=TYPE:DIMxDIM for each input, or NAME=TYPE:DIMxDIM:NUMBER for one of a number."""
import sys

import numpy as np


def value(spec):
    name, rest = spec.rsplit("=", 1)
    kind, dims, *number = rest.split(":")
    shape = [int(d) for d in dims.split("x") if d]
    n = int(np.prod(shape)) if shape else 1
    at = np.arange(n, dtype=np.int64)
    if kind.startswith("float"):
        data = ((at * 7 % 17).astype(np.float32) / np.float32(17)).astype(kind)
    else:
        data = (at * 7 % 17).astype(kind)
    if number:
        data[:] = int(number[0])
    return name, data.reshape(shape)


def onnxruntime(model, inputs):
    import onnxruntime as ort
    o = ort.SessionOptions()
    o.intra_op_num_threads = 1
    s = ort.InferenceSession(model, o, providers=["CPUExecutionProvider"])
    names = [t.name for t in s.get_outputs()]
    return dict(zip(names, s.run(names, inputs)))


def openvino(model, inputs):
    import openvino as ov
    c = ov.Core().compile_model(model, "CPU", {
        "INFERENCE_NUM_THREADS": "1", "NUM_STREAMS": "1", "ENABLE_CPU_PINNING": "NO", "INFERENCE_PRECISION_HINT": "f32"})
    # By position: which of a tensor's names the API gives is not settled.
    r = c([inputs[n] for n in inputs])
    return {"%03d" % i: r[p] for i, p in enumerate(c.outputs)}


def litert(model, inputs):
    from ai_edge_litert.interpreter import Interpreter
    i = Interpreter(model_path=model, num_threads=1)
    i.allocate_tensors()
    for d, n in zip(i.get_input_details(), inputs):
        i.set_tensor(d["index"], inputs[n])
    i.invoke()
    return {d["name"]: i.get_tensor(d["index"]) for d in i.get_output_details()}


def executorch(model, inputs):
    import torch
    from executorch.runtime import Runtime
    m = Runtime.get().load_program(model).load_method("forward")
    out = m.execute([torch.from_numpy(inputs[n]) for n in inputs])
    return {"%03d" % i: o.numpy() for i, o in enumerate(out)}


def pytorch(model, inputs):
    import torch
    torch.set_num_threads(1)
    if model.endswith(".pt2"):
        run = torch._inductor.aoti_load_package(model)
    else:
        run = torch.jit.load(model).eval()
    with torch.inference_mode():
        out = run(*[v.item() if v.ndim == 0 else torch.from_numpy(v) for v in inputs.values()])
    out = out if isinstance(out, (tuple, list)) else (out,)
    return {"%03d" % i: o.numpy() for i, o in enumerate(out)}


engine, model, out = sys.argv[1:4]
results = globals()[engine](model, dict(value(s) for s in sys.argv[4:]))
with open(out, "wb") as f:
    for name in sorted(results):
        f.write(np.ascontiguousarray(results[name]).tobytes())
