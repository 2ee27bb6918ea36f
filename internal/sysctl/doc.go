// Package sysctl sets parameters of the kernel below /proc/sys, and gives them back what they were. It knows
// nothing of what they mean.
package sysctl
