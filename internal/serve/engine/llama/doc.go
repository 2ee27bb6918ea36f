// Package llama is the engine of language models in the format GGUF. It reads
// the file's header, decides slots, context and caches by the memory that the
// worker may use, and runs llama.cpp's llama-server as its child, which listens
// on a Unix socket and nowhere else. Requests are those of package language; as
// many are computed at once as there are slots. The child ends with the worker,
// and the worker with the child.
package llama
