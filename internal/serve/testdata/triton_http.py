"""Speaks to a server of the Open Inference Protocol by Triton's own client over
HTTP, unchanged: python3 triton_http.py HOST:PORT MODEL. MODEL takes one FP32
input [N,1,28,28] and gives one FP32 output [N,10]."""
import asyncio
import sys

import numpy as np
import tritonclient.http as triton
import tritonclient.http.aio as aio
from tritonclient.utils import InferenceServerException

url, model = sys.argv[1:]
client = triton.InferenceServerClient(url, concurrency=4)
assert client.is_server_live() and client.is_server_ready()
assert client.is_model_ready(model) and client.is_model_ready(model, "1")
assert not client.is_model_ready("none")
assert client.get_server_metadata()["name"] == "oscine"
assert [m["name"] for m in client.get_model_repository_index()] == [model]
metadata = client.get_model_metadata(model)
name, output = metadata["inputs"][0]["name"], metadata["outputs"][0]["name"]
config = client.get_model_config(model)
assert config["input"][0]["name"] == name and config["input"][0]["data_type"] == "TYPE_FP32", config
assert client.get_trace_settings()["trace_level"] == ["OFF"]
assert client.get_log_settings()["log_info"] is True
assert client.get_system_shared_memory_status() == []
client.unregister_system_shared_memory()
client.load_model(model)

pictures = np.random.default_rng(1).random((3, 1, 28, 28), dtype=np.float32)
tensor = triton.InferInput(name, list(pictures.shape), "FP32")
answers = []
for binary_in in (True, False):
    tensor.set_data_from_numpy(pictures, binary_data=binary_in)
    for outputs in (None, [triton.InferRequestedOutput(output, binary_data=True)], [triton.InferRequestedOutput(output, binary_data=False)]):
        for compression in (None, "gzip", "deflate"):
            answer = client.infer(model, [tensor], outputs=outputs, request_id="7", request_compression_algorithm=compression, response_compression_algorithm=compression)
            assert answer.get_response()["id"] == "7"
            answers.append(answer.as_numpy(output))
answers += [pending.get_result().as_numpy(output) for pending in [client.async_infer(model, [tensor]) for _ in range(20)]]
for scores in answers:
    assert scores.shape == (3, 10) and np.allclose(scores, answers[0], atol=1e-4), scores

assert client.infer(model, [tensor], priority=1, timeout=10_000_000).as_numpy(output).shape == (3, 10)

for binary in (True, False):
    classes = client.infer(model, [tensor], outputs=[triton.InferRequestedOutput(output, binary_data=binary, class_count=2)]).as_numpy(output)
    assert classes.shape == (3, 2), classes
    for row, scores in zip(classes, answers[0]):
        text = row[0].decode() if isinstance(row[0], bytes) else row[0]
        assert int(text.split(":")[1]) == int(np.argmax(scores)), (row, scores)

statistics = client.get_inference_statistics(model)["model_stats"][0]
assert statistics["inference_count"] > 20 and statistics["inference_stats"]["success"]["ns"] > 0, statistics

for refused in (lambda: client.infer("none", [tensor]), lambda: client.load_model("none"), lambda: client.unload_model(model), lambda: client.register_system_shared_memory("r", "/r", 8)):
    try:
        refused()
        sys.exit("what must be refused was answered")
    except InferenceServerException as refusal:
        assert refusal.message(), refusal


async def main():
    async with aio.InferenceServerClient(url) as client:
        assert await client.is_model_ready(model)
        tensor = aio.InferInput(name, list(pictures.shape), "FP32")
        tensor.set_data_from_numpy(pictures)
        for answer in await asyncio.gather(*[client.infer(model, [tensor]) for _ in range(20)]):
            assert np.allclose(answer.as_numpy(output), answers[0], atol=1e-4)


asyncio.run(main())
print("answers agree")
