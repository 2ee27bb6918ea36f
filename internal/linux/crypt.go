package linux

import (
	"fmt"
	"os"
)

// Flags of a request about a table that holds a key (include/uapi/linux/dm-ioctl.h).
const (
	dmStatusTableFlag = 1 << 4  // the table's parameters, not its state
	dmSecureDataFlag  = 1 << 15 // the kernel wipes its copy
)

// CryptMapping is a writable device-mapper device with the target crypt.
type CryptMapping struct {
	Name    string
	Params  string // they hold the key
	Sectors uint64 // of 512 bytes
}

// Create makes the device and returns its node, such as /dev/dm-1. A failure removes
// what was made.
func (m CryptMapping) Create() (string, error) {
	return createMapping(m.Name, dmSecureDataFlag, dmTable("crypt", m.Params, m.Sectors))
}

// ReadCryptMapping returns the mapping of that name.
func ReadCryptMapping(name string) (CryptMapping, error) {
	ask := dmHeader{Flags: dmStatusTableFlag | dmSecureDataFlag}
	copy(ask.Name[:len(ask.Name)-1], name)
	params, sectors, err := dmStatus(ask, "crypt")
	if err != nil {
		return CryptMapping{}, fmt.Errorf("read mapping %s: %w", name, err)
	}
	return CryptMapping{name, params, sectors}, nil
}

// ResizeCryptMapping gives a mapping another length; it may be in use.
func ResizeCryptMapping(name string, sectors uint64) error {
	m, err := ReadCryptMapping(name)
	if err != nil || m.Sectors == sectors {
		return err
	}
	control, err := os.OpenFile(DeviceMapperControl, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("device mapper: %w", err)
	}
	defer control.Close()
	fd := int(control.Fd())
	if _, err := dmCall(fd, dmTableLoad, name, dmSecureDataFlag, dmTable("crypt", m.Params, sectors)); err != nil {
		return fmt.Errorf("resize mapping %s: %w", name, err)
	}
	if _, err := dmCall(fd, dmDevSuspend, name, 0, nil); err != nil {
		return fmt.Errorf("resize mapping %s: %w", name, err)
	}
	return nil
}
