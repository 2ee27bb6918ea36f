package pack

import (
	"time"

	"oscine.dev/oscine/internal/pki"
)

// Info describes a pack in a store, or one that was just built.
type Info struct {
	Manifest
	Digest    string // sha256:… of the file
	SizeBytes int64
	Installed time.Time
	File      string // path of the erofs file
	// Verity names the hash tree behind the file system, as release.Verity writes it:
	// ROOTHASH,SALT,BLOCKS. Empty in packs made before they had one.
	Verity string

	Signature pki.Signature // of an admin, checked at every mount
	Release   string        // of Oscine that pins it, in place of a signature; empty for none
}
