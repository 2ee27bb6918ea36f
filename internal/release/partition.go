package release

// Names of the partitions of a disk (the GPT partition name), in the order in
// which they lie on it.
const (
	PartitionESP   = "esp"    // FAT: boot loader and kernel images
	PartitionRootA = "root-a" // one slot: erofs and its dm-verity tree
	PartitionRootB = "root-b" // the other
	PartitionData  = "data"   // ext4, at /var
)

// Partitions returns the names of all partitions in the order on the disk.
func Partitions() []string {
	return []string{PartitionESP, PartitionRootA, PartitionRootB, PartitionData}
}

// Slots returns the names of the partitions that hold a root each.
func Slots() []string { return []string{PartitionRootA, PartitionRootB} }

// IsSlot reports whether a partition of that name holds a root.
func IsSlot(name string) bool { return name == PartitionRootA || name == PartitionRootB }

// ImageFolder is where the kernel images lie on the ESP, with slashes and
// without a leading one (UAPI Group Specification: Boot Loader, Type #2).
const ImageFolder = "EFI/Linux"
