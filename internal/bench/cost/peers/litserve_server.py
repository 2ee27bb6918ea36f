"""LitServe with ONNX Runtime, as its documents show it.

usage: litserve_server.py MODEL PORT
"""
import sys

import litserve
import numpy
import onnxruntime

MODEL, PORT = sys.argv[1], int(sys.argv[2])


class API(litserve.LitAPI):
    def setup(self, device):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(MODEL, options)

    def decode_request(self, request):
        return numpy.array([request["x"]], numpy.float32)

    def predict(self, x):
        (y,) = self.session.run(None, {"x": x})
        return y

    def encode_response(self, y):
        return {"y": y[0].tolist()}


if __name__ == "__main__":
    print("ready 127.0.0.1:" + sys.argv[2], flush=True)
    server = litserve.LitServer(API(), accelerator="cpu", devices=1, workers_per_device=1)
    server.run(host="127.0.0.1", port=PORT, num_api_servers=1, log_level="warning", generate_client_file=False, access_log=False)
