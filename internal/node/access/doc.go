// Package access owns who is refused and who is let in beyond certificates: the
// list of client certificates that a node refuses before they expire, the
// requests for renewed ones, and the tokens by which clients of inference are
// known, with what each may ask. It keeps all three on disk. The API asks for the
// first at each call, the endpoint of inference for the tokens at each request. It
// signs nothing. It depends on durable files, on pki and on what all fronts of
// inference share.
package access
