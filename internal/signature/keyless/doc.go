// Package keyless verifies signatures that were made with a certificate of a Sigstore, by its
// trusted root and without asking anyone. It is apart from package signature, so that manifests are
// checked without Sigstore's library and what that brings.
package keyless
