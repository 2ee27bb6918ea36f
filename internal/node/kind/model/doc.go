// Package model is the controller of the kind Model for the loop of internal/node/reconcile: its file, its
// engine's pack, chosen by trial where several read the file, and its worker, which a Server keeps alive and sends requests. It owns the folder of uploaded
// model files. It knows no protocol of inference. It depends on internal/node/sandbox,
// internal/node/reconcile, internal/container, internal/pack and internal/object.
package model
