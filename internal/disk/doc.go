// Package disk keeps one workload from filling the data partition: it bounds each one's space, by project
// quotas where the kernel has them, and when little is left it names and holds back those that grow. It stops
// and deletes nothing itself; it reports to its caller what must be stopped. It depends on internal/linux.
package disk
