#!/usr/bin/env python3
"""Asks a model from inside a workload, with nothing but Python's own library.

The workload's manifest says "inference: true", which puts the node's socket at
/run/oscine/inference.sock:

    python3 inference_socket.py MODEL [SOCKET]

It asks with zeros, one row, as the model describes its inputs, and prints the
shape of each output. For real work, tritonclient.grpc connects to
unix:///run/oscine/inference.sock as it is.
"""
import http.client
import json
import math
import socket
import struct
import sys

SIZES = {"BOOL": 1, "UINT8": 1, "INT8": 1, "UINT16": 2, "INT16": 2, "FP16": 2, "BF16": 2,
         "UINT32": 4, "INT32": 4, "FP32": 4, "UINT64": 8, "INT64": 8, "FP64": 8}


class Node(http.client.HTTPConnection):
    """A connection to the node over its Unix socket."""

    def __init__(self, path):
        super().__init__("node")
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(self.path)

    def ask(self, method, path, body=None, headers={}):
        self.request(method, path, body, headers)
        answer = self.getresponse()
        data = answer.read()
        if answer.status != 200:
            raise RuntimeError(json.loads(data)["error"])
        return answer, data

    def infer(self, model, inputs):
        """Takes {name: (datatype, shape, bytes)} and returns the same of the outputs."""
        head = json.dumps({
            "parameters": {"binary_data_output": True},
            "inputs": [{"name": name, "datatype": kind, "shape": shape, "parameters": {"binary_data_size": len(data)}}
                       for name, (kind, shape, data) in inputs.items()],
        }).encode()
        body = head + b"".join(data for _, _, data in inputs.values())
        answer, data = self.ask("POST", f"/v2/models/{model}/infer", body, {"Inference-Header-Content-Length": str(len(head))})
        length = int(answer.getheader("Inference-Header-Content-Length", len(data)))
        outputs, at = {}, length
        for out in json.loads(data[:length])["outputs"]:
            size = out["parameters"]["binary_data_size"]
            outputs[out["name"]] = (out["datatype"], out["shape"], data[at : at + size])
            at += size
        return outputs


def main():
    model = sys.argv[1]
    node = Node(sys.argv[2] if len(sys.argv) > 2 else "/run/oscine/inference.sock")
    _, text = node.ask("GET", f"/v2/models/{model}")
    inputs = {}
    for want in json.loads(text)["inputs"]:
        shape = [1 if d < 0 else d for d in want["shape"]]
        if want["datatype"] == "BYTES":
            data = struct.pack("<I", 0) * math.prod(shape)
        else:
            data = bytes(SIZES[want["datatype"]] * math.prod(shape))
        inputs[want["name"]] = (want["datatype"], shape, data)
    for name, (kind, shape, data) in node.infer(model, inputs).items():
        print(name, kind, shape, len(data), "bytes")


if __name__ == "__main__":
    main()
