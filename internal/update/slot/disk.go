package slot

import "io"

// Disk is what an update changes of the disk that the machine was started from.
type Disk interface {
	// ESP gives f the EFI system partition. What f reads comes from the disk, not
	// from what an earlier call left in memory.
	ESP(f func(ESP) error) error
	// Open opens the partition of a slot, such as release.PartitionRootB.
	Open(slot string) (Partition, error)
}

// ESP is the file system that the boot loader reads. Paths are below its root,
// with slashes and without a leading one. Only Flush makes changes certain: until
// it returns, a power failure may leave any of them done, half done or undone.
type ESP interface {
	// List returns the names of the files in a folder; none where it is not there.
	List(dir string) ([]string, error)
	// Open opens a file for reading.
	Open(path string) (File, error)
	// Create makes a file with size bytes of content.
	Create(path string, content io.Reader, size int64) error
	// Rename gives a file another name in the same folder.
	Rename(path, name string) error
	// Replace gives a file the name of another one in the same folder, which it
	// replaces. It returns when that is on the disk; whenever power fails, the name has
	// one of the two, whole.
	Replace(path, name string) error
	Remove(path string) error
	// Wipe overwrites a small file that holds a secret, and removes it. No such file is
	// no error.
	Wipe(path string) error
	Flush() error
	// Free is how many bytes are left.
	Free() (int64, error)
}

// File is an open file of an ESP.
type File interface {
	io.ReaderAt
	io.Closer
	Size() int64 // bytes
}

// Partition is the device of one slot.
type Partition interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Size() int64 // bytes
	// Flush returns when all that was written is on the disk; what is read
	// afterwards comes from there.
	Flush() error
}
