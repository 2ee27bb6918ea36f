// Package attesttest starts a TPM by others for tests.
package attesttest
