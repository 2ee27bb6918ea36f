"""Speaks to a server of the Open Inference Protocol by MLServer's own client and
types, unchanged: python3 mlserver_client.py HOST:PORT MODEL. MODEL takes one FP32
input [N,1,28,28] and gives one FP32 output [N,10]."""
import json
import pathlib
import sys
import tempfile

import httpx
import numpy as np
from click.testing import CliRunner
from mlserver.cli.main import root
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse

url, model = sys.argv[1:]
pictures = np.random.default_rng(1).random((3, 1, 28, 28), dtype=np.float32)
request = InferenceRequest(id="7", inputs=[NumpyCodec.encode_input("image", pictures)])
answer = httpx.post(f"http://{url}/v2/models/{model}/infer", content=request.model_dump_json())
assert answer.status_code == 200, answer.text
response = InferenceResponse.model_validate(answer.json())
want = NumpyCodec.decode_output(response.outputs[0])
assert response.id == "7" and want.shape == (3, 10), response

# Its command for many requests.
with tempfile.TemporaryDirectory() as folder:
    source, target = pathlib.Path(folder, "in.jsonl"), pathlib.Path(folder, "out.jsonl")
    lines = [InferenceRequest(id=str(i), inputs=[NumpyCodec.encode_input("image", pictures[i : i + 1])]) for i in range(3)]
    source.write_text("".join(line.model_dump_json() + "\n" for line in lines))
    ran = CliRunner().invoke(root, ["infer", "-u", url, "-m", model, "-i", str(source), "-o", str(target)])
    assert ran.exit_code == 0, ran.output
    got = {}
    for line in target.read_text().splitlines():
        response = InferenceResponse.model_validate(json.loads(line))
        got[int(response.id)] = NumpyCodec.decode_output(response.outputs[0])
    assert sorted(got) == [0, 1, 2], got
    for i, scores in got.items():
        assert np.allclose(scores.reshape(10), want[i], atol=1e-4), scores
print("answers agree")
