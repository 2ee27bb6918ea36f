// Package openvino runs models with OpenVINO on CPUs: its own IR, ONNX,
// TensorFlow Lite, SavedModel and frozen graphs. It calls the C API of
// libopenvino_c. It is part of engine workers, not of the daemon.
package openvino
