// Package access owns who is refused and who is let in beyond certificates: the
// list of client certificates that a node refuses before they expire, and the
// tokens by which clients of inference are known, with what each may ask. It
// keeps both on disk. The API asks for the first at each call, the endpoint of
// inference for the second at each request. It depends on durable files and on
// what all fronts of inference share.
package access
