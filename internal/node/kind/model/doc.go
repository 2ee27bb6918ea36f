// Package model is the controller of the kind Model for the loop of
// internal/node/reconcile: its files, its engine's pack, chosen by trial where several
// read the model, and its workers, which a Server keeps alive and sends requests. It
// owns the folder of model files, uploaded or pulled, and lets no model be served that
// is not signed as it has to be. It knows no protocol of inference. It depends on
// internal/node/sandbox, internal/node/reconcile, internal/container, internal/pack,
// internal/signature and internal/object.
package model
