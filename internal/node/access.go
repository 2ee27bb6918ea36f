package node

import "oscine.dev/oscine/internal/node/access"

// Access is the list of client certificates that the node refuses.
func (n *Node) Access() *access.List { return n.access }

// Tokens are those of the clients of inference.
func (n *Node) Tokens() *access.Tokens { return n.tokens }

// accessFile is where the revoked certificates are kept, and tokenFile the tokens,
// below the state folder.
const (
	accessFile = "revoked.json"
	tokenFile  = "tokens.json"
)
