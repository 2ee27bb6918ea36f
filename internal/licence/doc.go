// Package licence finds the licences of the components that Oscine is
// built from, and writes them as SPDX licence expressions: those of a Debian
// package from its copyright file, those of a Go module from its licence files.
//
// It guesses nothing. What it does not recognise keeps its whole text under a
// LicenseRef, so that a reader of a bill of materials can judge it. It fetches
// nothing: it reads what is on the disk already.
package licence
