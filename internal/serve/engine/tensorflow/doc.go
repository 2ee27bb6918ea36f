// Package tensorflow runs SavedModels with TensorFlow on CPUs. It calls the C API
// of libtensorflow_cc with a session and reads names and shapes out of the
// model's signature itself. It is part of engine workers, not of the daemon.
package tensorflow
