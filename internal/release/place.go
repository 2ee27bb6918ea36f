package release

// ModulesFile lists the kernel modules to load whatever the machine is made of,
// one a line in loading order, each relative to /usr/lib/modules/RELEASE or
// absolute; text after the path is the module's parameters. The image builder
// writes one into the initramfs for stage 1 and one into the root for PID 1.
// Drivers are not listed: they are found by modules.dep and modules.alias in
// /usr/lib/modules/RELEASE, as is all that the kernel itself asks for.
const ModulesFile = "/etc/oscine/modules"

// TrustedRoot is where the image keeps the TUF root metadata of who publishes its
// releases, when it was built with some.
const TrustedRoot = "/usr/share/oscine/update/root.json"

// ESPOnRoot is the folder of the root with all that the ESP holds beside kernel
// images, under its names there: the signed boot loader, its configuration, and the
// keys that it enrols.
const ESPOnRoot = "/usr/share/oscine/esp"

// EmptyData is where the root keeps an empty data partition of EmptyDataSize bytes,
// compressed with gzip: what a new disk and one that is reset begin with. It grows
// on its first boot.
const (
	EmptyData     = "/usr/share/oscine/data.ext4.gz"
	EmptyDataSize = 256 << 20
)

// ImageLabel is the label of the data partition of a disk image, as it is built: stage 1
// tells it by that from one of EmptyData, which may be there because of a reset.
const ImageLabel = "oscine-image"

// An encrypted data partition: what it begins with (LUKS), where its data begins, and
// a block before that which LUKS leaves alone, both in bytes. The block holds in the
// clear what stage 1 counts before it can open the partition.
const (
	EncryptedMagic = "LUKS\xba\xbe"
	EncryptedStart = 16 << 20
	EncryptedCount = 15 << 20
)

// DataMapping is the device mapper's name of an encrypted data partition that is open.
const DataMapping = "oscine-data"

// OpenData is the daemon's first argument when stage 1 has it open an encrypted data
// partition, whose node follows. It writes the node of the open one, or why the
// partition stays locked.
const OpenData = "open-data"

// Marks of a data partition that is to be erased at the next boot: a file in the
// daemon's state folder, and one on the ESP, by its path there, which counts.
const (
	ResetMark = "reset"
	ESPReset  = "oscine/reset"
)

// ESPResetKeeps is what the mark on the ESP says when the Machine there is to stay: the
// data partition was being encrypted for it.
const ESPResetKeeps = "to be encrypted\n"

// BootLogFile is the name, in the daemon's state folder, of what stage 1 and PID 1
// say during boots on trial, one line each. It outlives the way back to the version
// before, whose daemon reads it and removes it.
const BootLogFile = "boot.log"

// MaxBootLog is the most bytes of that file.
const MaxBootLog = 256 << 10

// BootLogAttempt begins the line that begins each boot in that file; the path of
// the kernel image follows.
const BootLogAttempt = "boot of "

// Where the Machine file, a node's configuration, lies. The daemon takes the
// first of FirmwareMachine and MachineFile that is there; PID 1 moves the one on
// the ESP to MachineFile.
const (
	// MachineFile is its name in the daemon's state folder.
	MachineFile = "machine.yaml"
	// ESPMachine is its path on the ESP.
	ESPMachine = "oscine/machine.yaml"
	// FirmwareMachineName is its name in QEMU's fw_cfg.
	FirmwareMachineName = "opt/oscine/machine"
	// FirmwareMachine is where Linux shows the one in fw_cfg
	// (Documentation/ABI/testing/sysfs-firmware-qemu_fw_cfg).
	FirmwareMachine = "/sys/firmware/qemu_fw_cfg/by_name/" + FirmwareMachineName + "/raw"
)
