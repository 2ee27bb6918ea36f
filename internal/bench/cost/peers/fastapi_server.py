"""The script that many people serve a model with: FastAPI around ONNX Runtime.

usage: fastapi_server.py MODEL PORT
"""
import sys

import numpy
import onnxruntime
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options)
app = FastAPI()


class Question(BaseModel):
    x: list[float]


@app.post("/infer")
async def infer(q: Question):
    (y,) = session.run(None, {"x": numpy.array([q.x], numpy.float32)})
    return {"y": y[0].tolist()}


print("ready 127.0.0.1:" + sys.argv[2], flush=True)
uvicorn.run(app, port=int(sys.argv[2]), log_level="warning", access_log=False)
