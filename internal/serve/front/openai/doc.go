// Package openai is the front of OpenAI's HTTP API: chat, completions,
// responses, embeddings and the list of models, with reranking and tokenising as
// other servers add them. It finds the model that a request names, hands the
// request to core as package language says, and passes the answer on as it
// comes. What a request means is the engine's business: this package reads no
// more of it than the model's name and whether the answer is a stream.
//
// Source: OpenAI's API reference, and the errors that its Python client maps.
package openai
