// Package channel owns what passes between the daemon and an engine worker:
// control messages over a Unix SOCK_SEQPACKET socket, and tensors in fixed
// slots of one shared memory region that the daemon creates, seals against
// resizing and hands over with SCM_RIGHTS. A worker keeps nothing between
// connections, so the daemon may be killed, come back and connect again with a
// new region; a new connection takes the place of the old one. Neither side
// trusts the other's numbers: every length, shape and offset is checked
// against the region before memory is touched. It knows no engine and no HTTP.
//
//	daemon                                worker
//	hello {version}             →
//	                            ←         model {version, engine, inputs, outputs} or {error}
//	region {slots, slot bytes} + memfd →
//	                            ←         mapped {} or {error}
//	run {sequence, requests}    →
//	                            ←         done {sequence, results}
package channel
