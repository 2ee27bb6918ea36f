#!/usr/bin/env python3
"""Asks a model through memory shared with the node: the tensors are not sent.

The workload's manifest says "inference: true", which puts the node's socket at
/run/oscine/inference.sock. Copy this file, or run it:

    python3 inference_memory.py MODEL [SOCKET]

It asks twice with zeros, one row, and prints the shape of each output.
"""
import array
import fcntl
import json
import math
import mmap
import os
import socket
import sys

import numpy

F_ADD_SEALS, F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_GROW = 1033, 1, 2, 4
ALIGN = 64


class Memory:
    """A connection with memory of its own. One thread uses it at a time."""

    def __init__(self, size, path="/run/oscine/inference.sock"):
        fd = os.memfd_create("inference", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(fd, size)
        fcntl.fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)
        self.memory = mmap.mmap(fd, size)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.connect(path)
        self.answers = self.socket.makefile("rb")
        self.ask("POST", "/v2/systemsharedmemory/region/memory/register", {"key": "memfd", "offset": 0, "byte_size": size}, fd)
        os.close(fd)

    def ask(self, method, path, body=None, fd=None):
        """Sends a request and returns the answer's JSON."""
        body = b"" if body is None else json.dumps(body).encode()
        request = b"%s %s HTTP/1.1\r\nHost: node\r\nContent-Length: %d\r\n\r\n%s" % (method.encode(), path.encode(), len(body), body)
        rights = [] if fd is None else [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))]
        sent = self.socket.sendmsg([request], rights)
        self.socket.sendall(request[sent:])
        status = self.answers.readline().split()
        length = 0
        while (line := self.answers.readline().strip()):
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        answer = json.loads(self.answers.read(length))
        if status[1] != b"200":
            raise RuntimeError(answer["error"])
        return answer

    def infer(self, model, inputs, outputs):
        """Asks with numpy arrays by name; outputs says how many bytes each may have.
        The arrays that it returns lie in the memory, until the next call."""
        question, end = {"inputs": [], "outputs": []}, 0
        for name, value in inputs.items():
            value = numpy.ascontiguousarray(value)
            numpy.frombuffer(self.memory, value.dtype, value.size, end)[:] = value.ravel()
            question["inputs"].append({"name": name, "datatype": TYPES[value.dtype.name], "shape": value.shape, "parameters": place(end, value.nbytes)})
            end += -(-value.nbytes // ALIGN) * ALIGN
        for name, size in outputs.items():
            question["outputs"].append({"name": name, "parameters": place(end, size)})
            end += -(-size // ALIGN) * ALIGN
        answer = self.ask("POST", "/v2/models/" + model + "/infer", question)
        return {out["name"]: self.output(out) for out in answer["outputs"]}

    def output(self, out):
        offset = out["parameters"].get("shared_memory_offset", 0)
        return numpy.frombuffer(self.memory, NAMES[out["datatype"]], math.prod(out["shape"]), offset).reshape(out["shape"])


TYPES = {"bool": "BOOL", "uint8": "UINT8", "int8": "INT8", "uint16": "UINT16", "int16": "INT16", "float16": "FP16",
         "uint32": "UINT32", "int32": "INT32", "float32": "FP32", "uint64": "UINT64", "int64": "INT64", "float64": "FP64"}
NAMES = {theirs: ours for ours, theirs in TYPES.items()}


def place(offset, size):
    return {"shared_memory_region": "memory", "shared_memory_offset": offset, "shared_memory_byte_size": size}


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    memory = Memory(16 << 20, *sys.argv[2:3])
    model = memory.ask("GET", "/v2/models/" + sys.argv[1])
    one = lambda shape: [1 if n < 0 else n for n in shape]
    zeros = {i["name"]: numpy.zeros(one(i["shape"]), NAMES[i["datatype"]]) for i in model["inputs"]}
    room = {o["name"]: 4 * ALIGN * math.prod(one(o["shape"])) for o in model["outputs"]}
    for _ in range(2):
        answer = memory.infer(sys.argv[1], zeros, room)
    for name, value in answer.items():
        print(name, value.dtype, list(value.shape), value.nbytes, "bytes")
