// Package bench measures Oscine against its peers on the same computer, in the
// same QEMU, in the same run, and reports ratios. Times are processor time of
// QEMU, which a busy host does not distort. Inside a machine it measures only through the machine's API.
package bench
