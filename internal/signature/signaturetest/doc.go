// Package signaturetest signs models for tests as OpenSSF model signing does, without its
// program. Production code never imports it.
package signaturetest
