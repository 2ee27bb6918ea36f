// Package source reads releases from where they are published: a folder, a
// web server or a registry. It implements update.Source with the client
// workflow of TUF (specification, section 5.3) on go-tuf's checks, and keeps the
// newest metadata that it saw, by which it finds what was rolled back.
//
// Nothing that comes from a location is used before it is checked: metadata by
// signatures of the trusted root, files by digests in metadata. It writes only
// its own state and what callers hand it to write to.
package source
