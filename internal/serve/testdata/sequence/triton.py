"""Sends sequences by Triton's own clients, unchanged: python3 triton.py HOST:PORT
PLAIN VAD. Both are silero-vad; of VAD the server keeps the state, of PLAIN the
client does."""
import queue
import sys

import numpy as np
import tritonclient.grpc as rpc
import tritonclient.http as http
from tritonclient.utils import InferenceServerException

url, plain, vad = sys.argv[1:]
pieces = np.random.default_rng(3).standard_normal((12, 1, 576)).astype(np.float32) / 4


def tensors(t, piece, state=None):
    values = {"input": (piece, "FP32"), "sr": (np.array(16000, np.int64), "INT64")}
    if state is not None:
        values["state"] = (state, "FP32")
    made = []
    for name, (value, kind) in values.items():
        made.append(t.InferInput(name, list(value.shape), kind))
        made[-1].set_data_from_numpy(value)
    return made


by_http, by_rpc = http.InferenceServerClient(url), rpc.InferenceServerClient(url)
state, want = np.zeros((2, 1, 128), np.float32), []
for piece in pieces:
    answer = by_rpc.infer(plain, tensors(rpc, piece, state))
    state = answer.as_numpy("stateN")
    want.append(answer.as_numpy("output"))

metadata = by_rpc.get_model_metadata(vad)
assert [i.name for i in metadata.inputs] == ["input", "sr"] and [o.name for o in metadata.outputs] == ["output"], metadata
batching = by_http.get_model_config(vad)["sequence_batching"]
assert batching["state"][0]["input_name"] == "state" and batching["state"][0]["dims"] == [2, 1, 128] and "direct" in batching, batching

last = len(pieces) - 1
for t, client in ((http, by_http), (rpc, by_rpc)):
    for sequence in (7, "seven"):
        for i, piece in enumerate(pieces):
            answer = client.infer(vad, tensors(t, piece), sequence_id=sequence, sequence_start=i == 0, sequence_end=i == last)
            assert np.array_equal(answer.as_numpy("output"), want[i]), i
        for wrong in ({}, {"sequence_id": sequence}, {"sequence_id": 8}):
            try:
                client.infer(vad, tensors(t, pieces[0]), **wrong)
                raise AssertionError(f"{wrong} was answered")
            except InferenceServerException as e:
                assert "sequence" in str(e), e

done = queue.Queue()
by_rpc.start_stream(callback=lambda result, error: done.put((result, error)))
for i, piece in enumerate(pieces):
    for sequence in (1000, 1001):
        by_rpc.async_stream_infer(vad, tensors(rpc, piece), request_id=str(i), sequence_id=sequence, sequence_start=i == 0, sequence_end=i == last)
for i in range(2 * len(pieces)):
    result, error = done.get(timeout=60)
    assert error is None, error
    assert np.array_equal(result.as_numpy("output"), want[i // 2]), i
by_rpc.stop_stream()
print("answers agree")
