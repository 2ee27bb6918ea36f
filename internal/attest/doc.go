// Package attest proves what a machine has booted: a node's TPM signs its platform
// configuration registers (PCRs) together with a nonce, and a client verifies the
// signature and compares the registers. It also reads and verifies the certificates
// that a TPM's maker put into it. It knows no network and keeps nothing, except
// that it writes evidence into a folder where a caller asks for it. It depends on
// go-tpm.
package attest
