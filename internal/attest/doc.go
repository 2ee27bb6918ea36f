// Package attest proves what a machine has booted: a node's TPM signs its platform
// configuration registers (PCRs) together with a nonce, and a client verifies the
// signature and compares the registers. It knows no network and keeps nothing; it
// depends on go-tpm alone.
package attest
