// Package node puts the rooms below it together to one node, and answers the
// API's calls: reconcile keeps objects as they were asked for, allocate gives
// them parts of the machine, sandbox runs them, and each kind adds what is its
// own. Here is only what belongs to the node as a whole: following its hardware,
// network and disk, images, packs, logs, metrics. It knows nothing of the API's
// wire format and of how the machine was booted.
package node
