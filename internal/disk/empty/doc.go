// Package empty makes empty data partitions of the one that each root brings. It
// depends on what the programs of a release share, and on the kernel's calls.
package empty
