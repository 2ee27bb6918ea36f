// Package clientconfig owns the file with a person's contexts: which nodes
// they talk to and with which certificate. It reads and writes that one file
// and dials nothing.
package clientconfig
