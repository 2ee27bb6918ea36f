// Package bundle owns how a model of several files travels and is stored: the
// list of the files that belong to it, found on the side of the person who serves
// it, and the one archive of them, whose SHA-256 names the model. Unpack takes
// nothing that Write does not write: no links, no paths that lead out, no more
// entries or bytes than its limits. It knows no engine and depends on
// internal/serve/rows for the data files of ONNX.
package bundle
