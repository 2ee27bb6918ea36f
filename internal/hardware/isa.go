package hardware

import (
	"slices"
	"strings"
)

// armImplementer names the implementer code of an Arm core.
// See Arm DDI 0487, MIDR_EL1.Implementer.
func armImplementer(code string) string {
	switch strings.ToLower(code) {
	case "0x41":
		return "Arm"
	case "0x42":
		return "Broadcom"
	case "0x43":
		return "Cavium"
	case "0x46":
		return "Fujitsu"
	case "0x48":
		return "HiSilicon"
	case "0x4e":
		return "NVIDIA"
	case "0x51":
		return "Qualcomm"
	case "0x61":
		return "Apple"
	case "0x6d":
		return "Microsoft"
	case "0xc0":
		return "Ampere"
	}
	return code
}

// armCore names a core by implementer and part number of its MIDR, empty where
// unknown. Linux arch/arm64/include/asm/cputype.h.
func armCore(implementer, part uint64) string {
	arm := map[uint64]string{
		0xd03: "Cortex-A53", 0xd04: "Cortex-A35", 0xd05: "Cortex-A55", 0xd07: "Cortex-A57", 0xd08: "Cortex-A72", 0xd09: "Cortex-A73",
		0xd0a: "Cortex-A75", 0xd0b: "Cortex-A76", 0xd0c: "Neoverse-N1", 0xd0d: "Cortex-A77", 0xd0e: "Cortex-A76AE", 0xd40: "Neoverse-V1",
		0xd41: "Cortex-A78", 0xd42: "Cortex-A78AE", 0xd44: "Cortex-X1", 0xd46: "Cortex-A510", 0xd47: "Cortex-A710", 0xd48: "Cortex-X2",
		0xd49: "Neoverse-N2", 0xd4b: "Cortex-A78C", 0xd4c: "Cortex-X1C", 0xd4d: "Cortex-A715", 0xd4e: "Cortex-X3", 0xd4f: "Neoverse-V2",
		0xd80: "Cortex-A520", 0xd81: "Cortex-A720", 0xd82: "Cortex-X4", 0xd83: "Neoverse-V3AE", 0xd84: "Neoverse-V3", 0xd85: "Cortex-X925",
		0xd87: "Cortex-A725", 0xd88: "Cortex-A520AE", 0xd89: "Cortex-A720AE", 0xd8a: "C1-Nano", 0xd8b: "C1-Pro", 0xd8c: "C1-Ultra",
		0xd8e: "Neoverse-N3", 0xd90: "C1-Premium",
	}
	others := map[[2]uint64]string{
		{0x43, 0x0af}: "ThunderX2", {0x46, 0x001}: "A64FX", {0x48, 0xd01}: "TaiShan V110", {0x48, 0xd02}: "HIP09", {0x48, 0xd06}: "HIP12",
		{0x4e, 0x003}: "Denver", {0x4e, 0x004}: "Carmel", {0x4e, 0x010}: "Olympus", {0x51, 0x001}: "Oryon", {0x6d, 0xd49}: "Cobalt 100",
		{0xc0, 0xac3}: "Ampere-1", {0xc0, 0xac4}: "Ampere-1a",
	}
	if implementer == 0x41 {
		return arm[part]
	}
	return others[[2]uint64{implementer, part}]
}

// riscvVendor names the JEDEC code of a RISC-V core's maker. Linux
// arch/riscv/include/asm/vendorid_list.h.
func riscvVendor(code string) string {
	switch code {
	case "0x31e":
		return "Andes"
	case "0x29":
		return "Microchip"
	case "0x127":
		return "MIPS"
	case "0x489":
		return "SiFive"
	case "0x5b7":
		return "T-Head"
	}
	return code
}

// aiInstructions keeps the instruction sets that matter to AI work, in the
// kernel's own spelling (arch/x86/include/asm/cpufeatures.h, arm64 hwcaps).
func aiInstructions(flags []string) []string {
	var kept []string
	for _, f := range flags {
		if wanted(f) && !slices.Contains(kept, f) {
			kept = append(kept, f)
		}
	}
	slices.Sort(kept)
	return kept
}

func wanted(flag string) bool {
	switch flag {
	case "sse4_2", "avx", "avx2", "fma", "f16c", "avx_vnni", "avx_vnni_int8", "avx_vnni_int16", "avx_ifma", "avx_ne_convert", "vaes", "gfni",
		"asimd", "asimdhp", "asimddp", "fphp", "neon", "i8mm", "bf16", "ebf16", // Arm
		"lsx", "lasx", // LoongArch
		"vx", "vxe", "vxe2", "nnpa": // s390x, the last its AI accelerator
		return true
	}
	if flag == "smep" || flag == "sme_coherent" {
		return false // not Arm's matrix extension
	}
	for _, family := range []string{"avx512", "avx10", "amx_", "sve", "sme"} {
		if strings.HasPrefix(flag, family) {
			return true
		}
	}
	return false
}

// riscvInstructions reads an ISA string such as "rv64imafdcv_zvfh_zvbb".
func riscvInstructions(isa string) []string {
	base, extensions, _ := strings.Cut(isa, "_")
	var kept []string
	if len(base) > 4 && strings.Contains(base[4:], "v") {
		kept = append(kept, "v")
	}
	for _, e := range strings.Split(extensions, "_") {
		if strings.HasPrefix(e, "zv") || strings.HasPrefix(e, "xthead") {
			kept = append(kept, e)
		}
	}
	return kept
}
