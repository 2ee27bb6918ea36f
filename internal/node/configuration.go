package node

import "oscine.dev/oscine/internal/configuration"

// Configurations is the node's Machine with its history.
func (n *Node) Configurations() *configuration.Store { return n.config.Configurations }
