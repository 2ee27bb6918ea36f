// Package sysctl sets kernel parameters below /proc/sys, and restores their earlier values. It knows
// nothing of what they mean.
package sysctl
