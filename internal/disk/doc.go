// Package disk keeps a file system from being filled by one of those who share
// it: it bounds what each may hold, by project quotas where the kernel has them,
// and names and holds back whoever grows when little is left.
package disk
