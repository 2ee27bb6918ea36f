// Package signature verifies who signed models: with public keys or certificates'
// authorities, signatures as OpenSSF model signing v1 and cosign write them. It reads what
// is signed and asks no server: no transparency log, and no identities of Fulcio. It
// depends on Sigstore's own definitions of the formats.
package signature
