// Command oscine-llama is the engine worker for language models in the format
// GGUF: it runs llama.cpp's server as its child, inside the pack's container,
// and serves one model by it for the daemon. It is started by oscined inside
// the llama.cpp pack.
package main
