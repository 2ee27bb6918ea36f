// Package debian fetches pinned Debian packages and unpacks them without
// dpkg: the kernel, the boot loader, the container runtime and its libraries
// that go onto the image, and the tools (QEMU, firmware, mkfs) that hosts with
// older ones lack.
//
// What is fetched is listed in lock.json by exact version and SHA-256, and
// kept in a cache outside the source tree. The package names no mirror: it
// takes the one of the machine's own apt configuration, of the environment
// variable OSCINE_DEBIAN_MIRROR, or debootstrap's default. It never installs
// anything on the host and needs no root.
package debian
