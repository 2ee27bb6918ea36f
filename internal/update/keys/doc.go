// Package keys keeps the private keys that sign releases: Ed25519, one file for
// each key, readable by its owner alone, encrypted where a passphrase is given.
// It knows nothing of what is signed.
package keys
