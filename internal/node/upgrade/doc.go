// Package upgrade takes a node from one release to the next and, if that does
// not work, tells the previous one why: it fetches a release into the idle slot,
// waits for its time, has the machine restart into it, judges it, and remembers
// what failed. Each stage is recorded on disk before it begins, so that after a restart
// the daemon continues from there. Package slot owns what the disk holds, package
// update where releases come from, and the node what is
// checked.
package upgrade
