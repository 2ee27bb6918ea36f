package hardware

import "encoding/binary"

// PCI configuration space, PCI Express Base Specification 6.0, chapter 7. An
// unprivileged reader gets the first 64 bytes only.
const (
	pciStatus       = 0x06
	pciCapabilities = 0x34
	pciExpress      = 0x10 // capability id
	pciLinkCap      = 0x0c // within the capability
	pciLinkStatus   = 0x12
	pciExtended     = 0x100
	pciACS          = 0x000d // extended capability id
	pciACSControl   = 0x06
)

// config reads n bytes of a configuration space at an offset; it returns nil
// past the end. Each read costs a trip to the device, in a virtual machine to
// the host, so only what is needed is read.
type config func(offset, n int) []byte

// configSpace takes what sysfs has no attribute for, or had none before Linux
// 4.13: link speed and width, and whether a bridge's ACS is on.
func (s *scan) configSpace(d *PCIDevice, file string) {
	if d.Link != nil && !d.Bridge || d.Link == nil && s.linkAttributes {
		return
	}
	at, done, err := s.ranges(file)
	if err != nil {
		return // unreadable to some users; the attributes suffice
	}
	defer done()
	if d.Link == nil {
		d.Link, d.Best = configLinks(at)
	}
	if d.Bridge {
		d.ACS = configACS(at)
	}
}

// configLinks reads the current and best link of the PCI Express capability.
func configLinks(at config) (now, best *PCILink) {
	status, first := at(pciStatus, 2), at(pciCapabilities, 1)
	if status == nil || first == nil || status[0]&0x10 == 0 {
		return nil, nil
	}
	offset := int(first[0] &^ 3)
	for hops := 0; offset >= 64 && hops < 48; hops++ {
		head := at(offset, 2)
		if head == nil {
			return nil, nil
		}
		if head[0] == pciExpress {
			able, is := at(offset+pciLinkCap, 2), at(offset+pciLinkStatus, 2)
			if able == nil || is == nil {
				return nil, nil
			}
			return configLink(binary.LittleEndian.Uint16(is)), configLink(binary.LittleEndian.Uint16(able))
		}
		offset = int(head[1] &^ 3)
	}
	return nil, nil
}

// configLink decodes a link register: speed in bits 0–3, width in bits 4–9.
func configLink(register uint16) *PCILink {
	speeds := [...]float64{1: 2.5, 2: 5, 3: 8, 4: 16, 5: 32, 6: 64}
	speed, width := int(register&0xf), int(register>>4&0x3f)
	if speed == 0 || speed >= len(speeds) || width == 0 {
		return nil
	}
	return &PCILink{GTs: speeds[speed], Width: width}
}

// configACS reports whether any access control is switched on.
func configACS(at config) bool {
	for offset, hops := pciExtended, 0; offset >= pciExtended && hops < 64; hops++ {
		head := at(offset, 4)
		if head == nil {
			return false
		}
		header := binary.LittleEndian.Uint32(head)
		if header&0xffff == pciACS {
			control := at(offset+pciACSControl, 2)
			return control != nil && binary.LittleEndian.Uint16(control) != 0
		}
		offset = int(header >> 20 &^ 3)
	}
	return false
}
