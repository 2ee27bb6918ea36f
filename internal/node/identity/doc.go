// Package identity owns the certificate by which the node's clients recognise it:
// which one counts, and renewing it while the node serves. It neither signs
// certificates, nor asks anyone for them. It depends on the cluster's certificates
// and writes one file.
package identity
