package boot

import (
	"fmt"

	"oscine.dev/oscine/internal/release"
)

// verityTable is the parameter line of the kernel's verity target on device. A
// corrupt block panics, so the boot counter of the slot goes down, instead of
// giving programs an I/O error that they may take for anything.
func verityTable(v release.Verity, device string, hashStart uint64) string {
	return fmt.Sprintf("1 %s %s %d %d %d %d sha256 %x %s 1 panic_on_corruption",
		device, device, release.BlockSize, release.BlockSize, v.Blocks, hashStart, v.RootHash, v.SaltText())
}
