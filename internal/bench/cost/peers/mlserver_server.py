"""MLServer with ONNX Runtime, in one process, as its authors advise for small models.

usage: mlserver_server.py MODEL PORT
"""
import asyncio
import logging
import sys

import onnxruntime
from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse

MODEL, PORT = sys.argv[1], int(sys.argv[2])


class Onnx(MLModel):
    async def load(self):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(MODEL, options)
        return True

    async def predict(self, payload):
        x = NumpyCodec.decode_input(payload.inputs[0])
        (y,) = self.session.run(None, {"x": x})
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("y", y)])


async def main():
    settings = Settings(http_port=PORT, grpc_port=PORT + 1, metrics_port=PORT + 2, host="127.0.0.1", parallel_workers=0, debug=False)
    server = MLServer(settings)
    await server.start([ModelSettings(name="m", implementation=Onnx)])


logging.disable(logging.WARNING)
print("ready 127.0.0.1:" + sys.argv[2], flush=True)
asyncio.run(main())
