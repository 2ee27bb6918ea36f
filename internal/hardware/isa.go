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
		"asimd", "asimdhp", "asimddp", "fphp", "neon", "i8mm", "bf16", "ebf16":
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
