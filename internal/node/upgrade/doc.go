// Package upgrade takes a node from one release to the next and, where that does
// not work, tells the one before why: it fetches a release into the idle slot,
// waits for its time, has the machine restart into it, judges it, and remembers
// what failed. Each stage is on the disk before it begins, so that a restart of
// daemon or machine goes on from there. What the disk holds is package slot's,
// where releases come from is package update's, and what the node checks is the
// node's.
package upgrade
