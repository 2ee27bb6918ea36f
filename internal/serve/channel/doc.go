// Package channel owns what passes between the daemon and an engine worker:
// messages over one Unix SOCK_SEQPACKET connection, and tensors in fixed slots
// of one shared memory region. The daemon listens in a folder that only the
// worker sees and that the worker cannot write to; the worker connects, and reconnects whenever the
// connection ends, so that a restarted daemon finds it. Neither side trusts the other's numbers: every
// length, shape, offset and id is checked before memory is touched. It knows no engine and no HTTP.
//
//	worker                                  daemon
//	hello {versions}                    →
//	                                    ←   welcome {version} or {error}
//	                                    ←   load {path, threads, options}
//	loaded {engine, inputs, …} or {error} →
//	                                    ←   region {slots, …} + memfd
//	mapped {} or {error}                →
//	                                    ←   run {requests, each with id, slot, deadline}
//	result {id, slot, code, outputs}    →       once for each request, and before
//	                                            it any number of partial results
//	                                    ←   statistics {}
//	statistics {runs, memory, …}        →
//	                                    ←   unload {}
//	unloaded {}                         →
//
// Several runs may be under way. A request is cancelled through the region's
// first page, which a worker sees while it computes: the daemon writes the
// request's id to the word of its slot and wakes the worker by a futex.
package channel
