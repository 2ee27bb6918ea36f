package linux

import (
	"encoding/binary"
	"io"
	"os"
	"unsafe"
)

// KeyPower is KEY_POWER of include/uapi/linux/input-event-codes.h.
const KeyPower = 116

const (
	evKey        = 1
	evdevGetKeys = 0x80604521 // EVIOCGBIT(EV_KEY, 96)
)

// HasKey reports whether the open input device can send the key code.
func HasKey(device *os.File, code int) bool {
	var keys [96]byte
	if ioctl(int(device.Fd()), evdevGetKeys, unsafe.Pointer(&keys[0])) != nil {
		return false
	}
	return keys[code/8]&(1<<(code%8)) != 0
}

// WaitKey blocks until the key code is pressed on the open input device, or
// the device is gone.
func WaitKey(device io.Reader, code int) error {
	var event [24]byte // struct input_event of a 64-bit kernel
	for {
		if _, err := io.ReadFull(device, event[:]); err != nil {
			return err
		}
		kind := binary.NativeEndian.Uint16(event[16:])
		key := binary.NativeEndian.Uint16(event[18:])
		value := binary.NativeEndian.Uint32(event[20:])
		if kind == evKey && int(key) == code && value == 1 {
			return nil
		}
	}
}
