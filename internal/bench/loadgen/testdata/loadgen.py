"""Runs the official LoadGen on a system that sleeps, and keeps its log files.

usage: loadgen.py FOLDER SETTINGS, the settings as JSON.
"""

import array
import json
import queue
import random
import sys
import threading
import time

import mlperf_loadgen as loadgen

folder, settings = sys.argv[1], json.loads(sys.argv[2])
scenario, mode = settings.pop("scenario"), settings.pop("mode")
shortest, longest, stall = settings.pop("shortest"), settings.pop("longest"), settings.pop("stall", 0)
random.seed(7)
queries = queue.Queue()


def work():
    while (query := queries.get()) is not None:
        for sample in query:
            time.sleep(stall if stall and random.random() < 0.05 else random.uniform(shortest, longest))
            data = array.array("B", [sample.index % 256] * 4)
            address, size = data.buffer_info()
            loadgen.QuerySamplesComplete([loadgen.QuerySampleResponse(sample.id, address, size)])


threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads:
    thread.start()
system = loadgen.ConstructSUT(queries.put, lambda: None)
library = loadgen.ConstructQSL(16, 16, lambda _: None, lambda _: None)
run = loadgen.TestSettings()
run.scenario, run.mode = getattr(loadgen.TestScenario, scenario), getattr(loadgen.TestMode, mode)
for name, value in settings.items():
    setattr(run, name, value)
log = loadgen.LogSettings()
log.enable_trace, log.log_output.outdir = True, folder
loadgen.StartTestWithLogSettings(system, library, run, log, "")
for _ in threads:
    queries.put(None)
