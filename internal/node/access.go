package node

import "oscine.dev/oscine/internal/node/access"

// Access is the list of client certificates that the node refuses.
func (n *Node) Access() *access.List { return n.access }

// accessFile is where the revoked certificates are kept, below the state folder.
const accessFile = "revoked.json"
