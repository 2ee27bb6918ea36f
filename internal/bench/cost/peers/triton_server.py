"""A Triton Inference Server with a Python model of ONNX Runtime.

usage: triton_server.py MODEL PORT
"""
import sys

import numpy
import onnxruntime
from pytriton.decorators import batch
from pytriton.model_config import ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options)
PORT = int(sys.argv[2])


@batch
def infer(x):
    return session.run(None, {"x": x})


row = [Tensor(name="x", dtype=numpy.float32, shape=(64,))], [Tensor(name="y", dtype=numpy.float32, shape=(64,))]
with Triton(config=TritonConfig(http_port=PORT, grpc_port=PORT + 1, metrics_port=PORT + 2, http_address="127.0.0.1")) as triton:
    triton.bind("m", infer, *row, config=ModelConfig(max_batch_size=64))
    print("ready 127.0.0.1:" + sys.argv[2], flush=True)
    triton.serve()
