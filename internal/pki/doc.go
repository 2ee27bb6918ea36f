// Package pki owns the keys and X.509 certificates of a cluster: its
// authority, the nodes' server certificates and the clients' certificates with their roles. It knows nothing
// of files and networks.
package pki
