// Package modelpack owns models as OCI artifacts: it writes the layout of CNCF's
// ModelPack specification, and reads that, Docker's and Ollama's. It takes the
// files that an engine reads and leaves documents, code and data sets. It never
// decides which engine runs a model. It depends on internal/artifact for registries and on
// internal/serve/bundle for what a model's files may be.
package modelpack
