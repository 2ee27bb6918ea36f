"""Asks an ensemble and its steps by Triton's own client, unchanged: python3
triton.py HOST:PORT."""
import sys

import numpy as np
import tritonclient.grpc as triton

client = triton.InferenceServerClient(sys.argv[1])


def ask(model, name, value):
    tensor = triton.InferInput(name, list(value.shape), "FP32")
    tensor.set_data_from_numpy(value)
    return client.infer(model, [tensor])


pictures = np.random.default_rng(1).random((3, 1, 28, 28), dtype=np.float32)
scores = ask("digits", "image", pictures).as_numpy("scores")
want = ask("softmax", "x", scores).as_numpy("y")
got = ask("chances", "picture", pictures).as_numpy("chances")
assert got.shape == (3, 10) and np.allclose(got, want, atol=1e-6), (got, want)
config = client.get_model_config("chances").config
assert config.platform == "ensemble" and [s.model_name for s in config.ensemble_scheduling.step] == ["softmax", "digits"], config
print("answers agree")
