// Package disk keeps the data partition of a node from being filled by one of
// those who share it: it bounds what each may hold, by project quotas where the
// kernel has them, and names and holds back whoever grows when little is left,
// in words for the people of the node. It stops and deletes nothing itself; what
// must be stopped it tells its caller. It depends on internal/linux.
package disk
