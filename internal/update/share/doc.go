// Package share gives files of releases to other nodes: a bounded folder of what this node
// fetched, and the handler that serves it, read-only, as a release folder that may lack
// some files. Who may ask is decided above it, and nobody has to believe what it sends: peers
// check every file against signed metadata. It also says how a node reaches its peers. It
// depends on packages update and pki.
package share
