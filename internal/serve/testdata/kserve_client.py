"""Speaks to a server by KServe's own client, unchanged, over its first protocol
and the Open Inference Protocol by HTTP and gRPC: python3 kserve_client.py
HOST:PORT MODEL. MODEL takes one FP32 input [N,1,28,28] and gives one FP32 output
[N,10]."""
import asyncio
import sys

import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig

url, model = sys.argv[1:]
base = f"http://{url}"
pictures = np.random.default_rng(1).random((3, 1, 28, 28), dtype=np.float32)


async def main():
    first = InferenceRESTClient(RESTConfig(protocol="v1"))
    second = InferenceRESTClient(RESTConfig(protocol="v2"))
    assert await second.is_server_live(base) and await second.is_server_ready(base)
    assert await second.is_model_ready(base, model)
    answer = await first.infer(base, {"instances": pictures.tolist()}, model_name=model)
    want = np.array(answer["predictions"])
    assert want.shape == (3, 10), answer
    for binary in (False, True):
        tensor = InferInput("image", list(pictures.shape), "FP32")
        tensor.set_data_from_numpy(pictures, binary_data=binary)
        request = InferRequest(model_name=model, infer_inputs=[tensor], request_id="7")
        answer = await second.infer(base, request, model_name=model)
        assert answer.id == "7", answer
        assert np.allclose(answer.outputs[0].as_numpy().reshape(3, 10), want, atol=1e-4), answer
        async with InferenceGRPCClient(url) as grpc:
            assert await grpc.is_server_ready() and await grpc.is_model_ready(model)
            answer = await grpc.infer(request)
            assert np.allclose(answer.outputs[0].as_numpy().reshape(3, 10), want, atol=1e-4), answer
    try:
        await first.infer(base, {"instances": [1]}, model_name="none")
        sys.exit("an unknown model was answered")
    except Exception as refusal:
        assert "none" in str(refusal), refusal


asyncio.run(main())
print("answers agree")
