package uki

import (
	"bytes"
	"encoding/binary"
	"io"

	"github.com/klauspost/compress/zstd"
)

// sectorSize is the unit of a bzImage's setup code, in bytes.
const sectorSize = 512

// maxVmlinux bounds an unpacked kernel in bytes.
const maxVmlinux = 512 << 20

// DirectKernel is the kernel for a machine that starts it without firmware: on
// x86-64 the ELF file inside the compressed image, which QEMU enters by the
// PVH protocol. That spares an emulated machine the unpacking, a fifth of its
// way to user space. Where there is none it is the kernel as it stands.
func (u *Image) DirectKernel() []byte {
	payload := compressedKernel(u.Kernel)
	if payload == nil {
		return u.Kernel
	}
	z, err := zstd.NewReader(bytes.NewReader(payload), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxVmlinux))
	if err != nil {
		return u.Kernel
	}
	defer z.Close()
	elf, err := io.ReadAll(io.LimitReader(z, maxVmlinux))
	if err != nil || !bytes.HasPrefix(elf, []byte("\x7fELF")) {
		return u.Kernel
	}
	return elf
}

// compressedKernel finds the zstd frame in a bzImage, nil if there is none
// (Documentation/arch/x86/boot.rst: setup_sects, payload_offset,
// payload_length; the frame's last four bytes are the unpacked size).
func compressedKernel(kernel []byte) []byte {
	if len(kernel) < 0x260 || !bytes.Equal(kernel[0x202:0x206], []byte("HdrS")) {
		return nil
	}
	u32 := func(at int) int64 { return int64(binary.LittleEndian.Uint32(kernel[at:])) }
	sectors := int64(kernel[0x1f1])
	if sectors == 0 {
		sectors = 4
	}
	start := (sectors+1)*sectorSize + u32(0x248)
	end := start + u32(0x24c) - 4
	if start > end || end > int64(len(kernel)) || !bytes.HasPrefix(kernel[start:end], []byte{0x28, 0xb5, 0x2f, 0xfd}) {
		return nil
	}
	return kernel[start:end]
}
