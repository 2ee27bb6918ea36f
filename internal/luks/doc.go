// Package luks reads and writes LUKS2 headers, as cryptsetup(8) does: a volume key
// behind key slots, and tokens beside them. It encrypts no data, which the kernel
// does (dm-crypt), and knows nothing of what a token means. It depends on the
// standard library and on the tweaked mode of AES.
package luks
