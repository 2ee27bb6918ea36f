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

// configSpace takes what sysfs has no attribute for, or had none before Linux
// 4.13: link speed and width, and whether a bridge's ACS is on.
func (s *scan) configSpace(d *PCIDevice, file string) {
	if d.Link != nil && !d.Bridge {
		return
	}
	config, err := s.read(file, maxAttribute)
	if err != nil {
		return // unreadable to some users; the attributes above suffice
	}
	if d.Link == nil {
		d.Link, d.Best = configLinks(config)
	}
	if d.Bridge {
		d.ACS = configACS(config)
	}
}

// configLinks reads the current and best link of the PCI Express capability.
func configLinks(config []byte) (now, best *PCILink) {
	if len(config) < 64 || config[pciStatus]&0x10 == 0 {
		return nil, nil
	}
	at := int(config[pciCapabilities] &^ 3)
	for hops := 0; at >= 64 && hops < 48 && at+pciLinkStatus+2 <= min(len(config), 256); hops++ {
		if config[at] == pciExpress {
			status := binary.LittleEndian.Uint16(config[at+pciLinkStatus:])
			able := binary.LittleEndian.Uint16(config[at+pciLinkCap:])
			return configLink(status), configLink(able)
		}
		at = int(config[at+1] &^ 3)
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
func configACS(config []byte) bool {
	for at, hops := pciExtended, 0; at >= pciExtended && at+8 <= len(config) && hops < 64; hops++ {
		header := binary.LittleEndian.Uint32(config[at:])
		if header&0xffff == pciACS {
			return binary.LittleEndian.Uint16(config[at+pciACSControl:]) != 0
		}
		at = int(header >> 20 &^ 3)
	}
	return false
}
