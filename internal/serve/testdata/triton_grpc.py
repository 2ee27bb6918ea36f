"""Speaks to a server of the Open Inference Protocol by Triton's own client over
gRPC, unchanged: python3 triton_grpc.py HOST:PORT MODEL. MODEL takes one FP32
input [N,1,28,28] and gives one FP32 output [N,10]."""
import asyncio
import queue
import sys

import numpy as np
import tritonclient.grpc as triton
import tritonclient.grpc.aio as aio
from tritonclient.utils import InferenceServerException

url, model = sys.argv[1:]
client = triton.InferenceServerClient(url)
assert client.is_server_live() and client.is_server_ready()
assert client.is_model_ready(model) and client.is_model_ready(model, "1")
assert not client.is_model_ready("none")
assert client.get_server_metadata().name == "oscine"
assert [m.name for m in client.get_model_repository_index().models] == [model]
metadata = client.get_model_metadata(model)
name, output = metadata.inputs[0].name, metadata.outputs[0].name
config = client.get_model_config(model).config
assert config.input[0].name == name and list(config.input[0].dims) == [-1, 1, 28, 28], config
assert list(client.get_trace_settings().settings["trace_level"].value) == ["OFF"]
assert client.get_log_settings().settings["log_info"].bool_param
assert not client.get_system_shared_memory_status().regions
client.unregister_system_shared_memory()
client.load_model(model)

pictures = np.random.default_rng(1).random((3, 1, 28, 28), dtype=np.float32)
tensor = triton.InferInput(name, list(pictures.shape), "FP32")
tensor.set_data_from_numpy(pictures)
answers = []
for outputs in (None, [triton.InferRequestedOutput(output)]):
    for compression in (None, "gzip", "deflate"):
        answer = client.infer(model, [tensor], outputs=outputs, request_id="7", compression_algorithm=compression)
        assert answer.get_response().id == "7"
        answers.append(answer.as_numpy(output))
for scores in answers:
    assert scores.shape == (3, 10) and np.allclose(scores, answers[0], atol=1e-4), scores
assert client.infer(model, [tensor], priority=1, timeout=10_000_000, client_timeout=10).as_numpy(output).shape == (3, 10)

done = queue.Queue()
for _ in range(20):
    client.async_infer(model, [tensor], lambda result, error: done.put((result, error)))
client.start_stream(callback=lambda result, error: done.put((result, error)))
for i in range(20):
    client.async_stream_infer(model, [tensor], request_id=str(i))
for _ in range(40):
    result, error = done.get(timeout=60)
    assert error is None, error
    assert np.allclose(result.as_numpy(output), answers[0], atol=1e-4)
client.async_stream_infer("none", [tensor])
result, error = done.get(timeout=60)
assert "none" in str(error), error
client.async_stream_infer(model, [tensor], enable_empty_final_response=True)
result, error = done.get(timeout=60)
assert result.get_response().parameters["triton_final_response"].bool_param
client.stop_stream()

classes = client.infer(model, [tensor], outputs=[triton.InferRequestedOutput(output, class_count=2)]).as_numpy(output)
assert classes.shape == (3, 2), classes
for row, scores in zip(classes, answers[0]):
    assert int(row[0].split(b":")[1]) == int(np.argmax(scores)), (row, scores)

statistics = client.get_inference_statistics(model).model_stats[0]
assert statistics.inference_count > 40 and statistics.inference_stats.success.ns > 0, statistics

for status, refused in (
    ("StatusCode.NOT_FOUND", lambda: client.infer("none", [tensor])),
    ("StatusCode.NOT_FOUND", lambda: client.load_model("none")),
    ("StatusCode.UNAVAILABLE", lambda: client.unload_model(model)),
    ("StatusCode.UNIMPLEMENTED", lambda: client.register_system_shared_memory("r", "/r", 8)),
):
    try:
        refused()
        sys.exit("what must be refused was answered")
    except InferenceServerException as refusal:
        assert refusal.status() == status, refusal


async def main():
    async with aio.InferenceServerClient(url) as client:
        assert await client.is_model_ready(model)
        for answer in await asyncio.gather(*[client.infer(model, [tensor]) for _ in range(20)]):
            assert np.allclose(answer.as_numpy(output), answers[0], atol=1e-4)

        async def requests():
            for i in range(5):
                yield {"model_name": model, "inputs": [tensor], "request_id": str(i)}

        ids = []
        async for result, error in client.stream_infer(requests()):
            assert error is None, error
            ids.append(result.get_response().id)
        assert ids == ["0", "1", "2", "3", "4"], ids


asyncio.run(main())
print("answers agree")
