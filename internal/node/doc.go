// Package node wires the packages below it into one node, and answers the API's calls: reconcile keeps
// objects in their desired state, allocate gives them parts of the machine, sandbox runs them, and each kind
// adds its controller. This package holds only what concerns the node as a whole: following its hardware,
// network and disk, images, packs, logs, metrics. It knows nothing of the API's wire format and of how the
// machine was booted.
package node
