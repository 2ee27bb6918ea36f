// Package signature verifies who signed models: with public keys, certificates'
// authorities, or the trusted root of a Sigstore and the identities of signers, signatures as
// OpenSSF model signing v1 and cosign write them. It reads what is signed and asks no server:
// entries of a transparency log come with the signature. Package keyless below it verifies by
// such a root.
package signature
