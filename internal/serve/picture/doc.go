// Package picture turns a picture into the tensor that a vision model wants:
// grey or colour, fitted to the model's size, and for one-channel models of
// written signs the ink light on dark and in the middle. It owns no model and
// no protocol.
package picture
