// Package encryption makes and opens an encrypted data partition: LUKS2, whose key the
// machine's TPM keeps for what its firmware started, and a recovery key. The kernel
// encrypts (dm-crypt). It depends on the kernel's calls, LUKS headers and the TPM, and
// never decides that a partition is erased.
package encryption
