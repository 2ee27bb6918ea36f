// Package uki reads, assembles, signs and verifies unified kernel images: the PE
// files that hold kernel, initramfs and command line of one release, and that the
// firmware starts only with a signature it trusts. It opens no file but a key's,
// and depends on package release alone.
package uki
