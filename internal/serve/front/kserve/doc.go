// Package kserve is the front of KServe's first protocol, which is TensorFlow
// Serving's REST predict: rows of instances, or named inputs, as JSON without
// types. Shapes follow from how the arrays are nested, types from the model. It
// depends on core and on what all fronts share.
//
// Sources: KServe's docs of the V1 inference protocol, and TensorFlow Serving's
// docs of the RESTful API.
package kserve
