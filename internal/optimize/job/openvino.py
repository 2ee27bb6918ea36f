"""Makes an optimised model for OpenVINO with NNCF.

The first argument is a file of JSON that says what to do; a line on standard output
says how far it is, and the last one is JSON with the options that were used. What a
person can act on is one line on standard error and exit status 3.
"""

import json
import os
import sys

# Nothing is told to its makers.
os.environ["NNCF_CI"] = "1"


# What its libraries write is no progress of this script.
OUT, sys.stdout = sys.stdout, sys.stderr


def refuse(text):
    print(text, file=sys.stderr)
    sys.exit(3)


def say(text):
    print(text, file=OUT, flush=True)


def main():
    with open(sys.argv[1]) as f:
        request = json.load(f)
    method = request["method"]
    say("reading the model")
    import openvino

    try:
        model = openvino.Core().read_model(request["model"])
    except Exception as e:
        refuse(f"OpenVINO cannot read it: {e}".splitlines()[0])
    version = openvino.__version__
    if method == "graph":
        options = {"tool": "openvino " + version}
    else:
        if any(node.get_type_name() == "FakeQuantize" for node in model.get_ops()):
            refuse("the model is quantised already: give the one that it was made from")
        import nncf

        nncf.set_log_level(40)
        options = {"tool": f"nncf {nncf.__version__}, openvino {version}"}
        if method == "int8-weights":
            say("compressing the weights")
            model = nncf.compress_weights(model)
            options["mode"] = "int8_asym"
        else:
            model = static(nncf, model, request, options)
        if not any(str(node.get_element_type()) in ("<Type: 'int8_t'>", "<Type: 'uint8_t'>") for node in model.get_ops() if node.get_type_name() == "Constant"):
            refuse("the model has no operator that can be quantised")
    openvino.save_model(model, request["result"], compress_to_fp16=False)
    print(json.dumps({"tool": options.pop("tool"), "options": options}), file=OUT)


def static(nncf, model, request, options):
    """Quantises weights and activations."""
    from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, OverflowFix

    preset, fix = request["options"]["preset"], request["cpu"]["overflowFix"]
    options.update(preset=preset, overflow_fix="enable" if fix else "disable")
    given = {"advanced_parameters": AdvancedQuantizationParameters(overflow_fix=OverflowFix.ENABLE if fix else OverflowFix.DISABLE)}
    if preset == "transformer":
        given["model_type"] = nncf.ModelType.TRANSFORMER
    else:
        given["preset"] = nncf.QuantizationPreset(preset)
    samples = request["samples"]
    seen = [0]

    def load(files):
        import numpy

        seen[0] += 1
        say(f"calibrating: {(seen[0] - 1) % len(samples) + 1} of {len(samples)}")
        return {name: numpy.load(file, allow_pickle=False) for name, file in zip(request["inputs"], files)}

    return nncf.quantize(model, nncf.Dataset(samples, load), subset_size=len(samples), **given)


main()
