package node

import "oscine.dev/oscine/internal/node/access"

// Access is the list of client certificates that the node refuses.
func (n *Node) Access() *access.List { return n.access }

// Renewals are the clients that ask for another certificate.
func (n *Node) Renewals() *access.Renewals { return n.renewals }

// Tokens are those of the clients of inference.
func (n *Node) Tokens() *access.Tokens { return n.tokens }

// Where the revoked certificates, the renewals, the tokens and the node's renewed
// certificate are kept, below the state folder.
const (
	accessFile  = "revoked.json"
	renewalFile = "renewals.json"
	tokenFile   = "tokens.json"

	identityFile = "identity.json"
)
