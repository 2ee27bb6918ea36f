// Package stick opens sources of releases for a node: those of package source, and
// release folders on USB sticks and other disks, found by the label of their file
// system. Such a one is mounted read-only, and only while its source is open.
package stick
