// Package artifact owns OCI artifacts outside of this machine's own stores: the
// references that name them, in a registry or in an OCI image layout (a folder, or
// a tar file of one), reading and writing their manifests there, and downloads
// that are checked against their digests and go on after a cut. It never looks
// into what an artifact holds, and never stores credentials. It depends on oras-go
// for the protocols.
package artifact
