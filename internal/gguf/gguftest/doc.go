// Package gguftest writes tiny language models with random weights, which real
// engines load, for tests. Production code never imports it.
package gguftest
