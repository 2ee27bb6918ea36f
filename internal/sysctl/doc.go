// Package sysctl sets kernel parameters below /proc/sys, and restores their earlier values, which
// it keeps in a file that its caller names. It knows nothing of what they mean, and depends on durable alone.
package sysctl
