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
	// Unverified says why blocks that are read from the pack are not checked; empty where
	// they are. Only the file as a whole is then checked, when it is mounted.
	Unverified string
	Damaged    time.Time // when its file was found damaged; zero where it was not
	Source     string    // reference with digest from which a node pulled it; empty where a person sent it
	PlainHTTP  bool      // the source's registry may be asked without TLS

	// KernelState says in words whether the driver of the kernel that it brings is loaded
	// there, and why not; empty where it brings none. The node sets it.
	KernelState string

	Signature pki.Signature // of an admin, checked at every mount
	Release   string        // of Oscine that pins it, in place of a signature; empty for none

	// Of an older version that is kept for what runs on it: the digest of the version that
	// has taken its place, and who stays on it, as Kind/name, with the reason; empty where
	// they have not been moved yet.
	Next  string
	Stays map[string]string
}
