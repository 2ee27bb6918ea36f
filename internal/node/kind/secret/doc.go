// Package secret owns what the kind Secret adds to the loop of a node: nothing
// runs for a Secret; its status is its size. Its values are never
// read here. It depends on the loop and on objects.
package secret
