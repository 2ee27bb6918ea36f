// Package chat is a client of chats through OpenAI's API: it sends a
// conversation and reads the answer as it comes. It depends on nothing of the
// server's side.
package chat
