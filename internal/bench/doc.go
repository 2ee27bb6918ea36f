// Package bench measures Oscine against its peers on the same computer, in the
// same QEMU, in the same run, and reports ratios. Times are processor time of
// QEMU, which a busy host does not spoil. It owns no measuring of its own
// inside a machine beyond what the machine's API tells.
package bench
