"""Speaks to a server of the Open Inference Protocol by Triton's own client,
unchanged: python3 triton_client.py HOST:PORT MODEL. MODEL takes one FP32 input
[N,1,28,28] and gives one FP32 output [N,10]."""
import sys

import numpy as np
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

url, model = sys.argv[1:]
client = triton.InferenceServerClient(url)
assert client.is_server_live() and client.is_server_ready()
assert client.is_model_ready(model) and client.is_model_ready(model, "1")
assert not client.is_model_ready("none")
assert client.get_server_metadata()["name"] == "oscine"
assert [m["name"] for m in client.get_model_repository_index()] == [model]
metadata = client.get_model_metadata(model)
name, output = metadata["inputs"][0]["name"], metadata["outputs"][0]["name"]

pictures = np.random.default_rng(1).random((3, 1, 28, 28), dtype=np.float32)
tensor = triton.InferInput(name, list(pictures.shape), "FP32")
answers = []
for binary_in in (True, False):
    tensor.set_data_from_numpy(pictures, binary_data=binary_in)
    for outputs in (None, [triton.InferRequestedOutput(output, binary_data=True)], [triton.InferRequestedOutput(output, binary_data=False)]):
        answer = client.infer(model, [tensor], outputs=outputs, request_id="7")
        assert answer.get_response()["id"] == "7"
        answers.append(answer.as_numpy(output))
answers += [pending.get_result().as_numpy(output) for pending in [client.async_infer(model, [tensor]) for _ in range(20)]]
for scores in answers:
    assert scores.shape == (3, 10) and np.allclose(scores, answers[0], atol=1e-4), scores

assert client.infer(model, [tensor], priority=1, timeout=10_000_000).as_numpy(output).shape == (3, 10)

try:
    client.infer("none", [tensor])
    sys.exit("an unknown model was answered")
except InferenceServerException as refusal:
    assert "none" in str(refusal), refusal
print("answers agree")
