package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"oscine.dev/oscine/internal/debian"
)

// Flavours of the kernel.
const (
	FlavourCloud = "cloud" // virtual machines
	FlavourMetal = "metal" // real machines, with their drivers
	FlavourRT    = "rt"    // as metal, with PREEMPT_RT
)

// Modules that stage 1 loads on every machine, to check and mount the root.
var stage1Modules = []string{"dm_mod", "dm_verity", "erofs"}

// Modules in the initramfs that stage 1 loads when their device is there or the
// kernel asks for them. A question mark stands for "where this kernel has it".
var stage1Ready = []string{
	"virtio_pci", "virtio_mmio?", "virtio_blk", "virtio_scsi", "sd_mod", "nvme",
	"efivarfs",                                    // which image was started
	"vfat", "nls_cp437", "nls_ascii", "nls_utf8?", // the ESP, to demote a bad image
	"ext4",     // built into the cloud kernel only
	"quota_v2", // the data partition counts what volumes hold; without it it cannot be mounted
	"i6300esb?",
}

// Modules of real storage controllers that stage 1 needs on metal.
var stage1Metal = []string{
	"ahci", "ahci_platform?", "usb_storage", "uas", "xhci_pci", "xhci_plat_hcd?", "mmc_block?", "sdhci_pci?", "sdhci_acpi?",
	"mpt3sas", "megaraid_sas", "smartpqi?", "hpsa?", "vmd?", "raid1?",
}

// Modules on the root of every flavour. None is loaded before its device is
// there or something asks the kernel for it: loading them all took a third of
// the boot.
var rootModules = []string{
	"virtio_net", "virtio_balloon?", "qemu_fw_cfg", "overlay",
	"virtio_rng", // a CPU without RDRAND starves getrandom
	"softdog?",
	"evdev", "button?", "gpio_keys?", // the power button
	"veth", "bridge", "br_netfilter", "tun", "dummy", "macvlan", "ipvlan", "vxlan", "8021q", "bonding",
	"nf_tables", "nf_conntrack", "nft_nat", "nft_masq", "nft_redir", "nft_chain_nat", "nft_ct", "nft_reject_inet", "nft_reject_ipv4", "nft_reject_ipv6", "nft_limit", "nft_log",
	"nft_fib_inet", "nft_numgen", "nft_hash", "nft_tproxy?", "nft_socket?", "nfnetlink_log?", "nfnetlink_queue?", "nf_log_syslog?",
	"loop", "nls_iso8859-1",
	"vsock", "vmw_vsock_virtio_transport",
	"tpm_crb?", "tpm_tis?", "wireguard",
	"dm_crypt", "xts?", "aesni_intel?", "aes_ce_blk?", // an encrypted data partition; see byNameOnly
}

// byNameOnly are modules that are loaded by their name and not for the device that they
// name, the processor: stage 1 loads them where the data partition is encrypted, and
// the daemon where it encrypts it: no other boot is to pay for them.
var byNameOnly = []string{"aesni_intel", "aes_ce_blk"}

// Network cards, watchdogs and accelerators of real machines. All stand ready
// on the root; PID 1 loads them by the identity of what it finds.
var metalModules = []string{
	// networking
	"e1000e", "igb", "igc", "ixgbe", "i40e?", "ice", "iavf?", "tg3", "bnxt_en", "bnx2x?", "r8169", "r8152?", "atlantic?", "mlx4_en?", "mlx5_core", "ena?",
	"gve?", "sfc?", "cxgb4?", "qede?", "ionic?", "thunderx_nicvf?", "hns3?", "mvpp2?", "stmmac_platform?", "dwmac_rk?", "usbnet?", "cdc_ncm?",
	// watchdogs and sensors
	"iTCO_wdt?", "sp5100_tco?", "wdat_wdt?", "sbsa_gwdt?", "ipmi_watchdog?", "ipmi_si?", "ipmi_devintf?", "coretemp?", "k10temp?", "acpi_cpufreq?",
	"intel_rapl_msr?", "msr?", "cpuid?", "dca?", "ioatdma?", "edac_core?",
	// accelerators whose drivers the kernel has
	"amdxdna?", "habanalabs?", "intel_vpu?", "ivpu?", "vfio_pci", "uio_pci_generic?",
	// guests on metal kernels
	"virtio_net",
}

// cloudModules serve the machines of public clouds and other hypervisors.
var cloudModules = []string{"ena?", "gve?", "hv_netvsc?", "hv_storvsc?", "hv_vmbus?", "xen_netfront?", "xen_blkfront?", "vmxnet3?", "mlx5_core?", "vfio_pci?", "msr?", "cpuid?"}

// kernel is an unpacked kernel with what it needs to load.
type kernel struct {
	dir     string // …/usr/lib/modules/VERSION
	version string
	modules *Modules
	early   []*Module // stage 1 loads them, in this order
	initrd  []*Module // early and those that stage 1 loads when needed
	ready   []*Module // on the root, loaded when needed
	tree    *debian.Tree
}

func openKernel(ctx context.Context, source *debian.Source, cache, flavour, arch string) (*kernel, error) {
	tree, err := source.Tree(ctx, "kernel-"+flavour, arch)
	if err != nil {
		return nil, err
	}
	parent := filepath.Join(tree.Dir, "usr/lib/modules")
	versions, err := os.ReadDir(parent)
	if err != nil || len(versions) != 1 {
		return nil, errors.Join(fmt.Errorf("the kernel package in %s does not hold one kernel", tree.Dir), err)
	}
	k := &kernel{version: versions[0].Name(), dir: filepath.Join(parent, versions[0].Name()), tree: tree}
	k.modules, err = IndexModules(ctx, k.dir, filepath.Join(cache, "image", filepath.Base(tree.Dir)+".json"))
	if err != nil {
		return nil, err
	}
	return k, k.choose(flavour)
}

// choose sorts the modules of a flavour by where they lie and when they load.
func (k *kernel) choose(flavour string) (err error) {
	first, later := slices.Concat(stage1Modules, stage1Ready), slices.Concat(rootModules, cloudModules)
	if flavour != FlavourCloud {
		first, later = append(first, stage1Metal...), slices.Concat(rootModules, metalModules)
	}
	if k.early, err = k.modules.Closure(stage1Modules); err != nil {
		return err
	}
	if k.initrd, err = k.modules.Closure(first); err != nil {
		return err
	}
	if k.ready, err = k.modules.Closure(later); err != nil {
		return err
	}
	k.ready = without(k.ready, k.initrd)
	return nil
}

func without(list, minus []*Module) []*Module {
	drop := map[*Module]bool{}
	for _, m := range minus {
		drop[m] = true
	}
	var out []*Module
	for _, m := range list {
		if !drop[m] {
			out = append(out, m)
		}
	}
	return out
}

// plainPath is a module's path on the image, where it lies unpacked: the image
// as a whole compresses better so, and a booting machine need not unpack it.
func (m *Module) plainPath() string {
	stem, _, _ := strings.Cut(m.Path, ".ko")
	return stem + ".ko"
}

func pathOf(version string, m *Module) string {
	return "usr/lib/modules/" + version + "/" + m.plainPath()
}

// loadList is the text of /etc/oscine/modules: one path a line, in load order,
// below the running kernel's modules folder.
func loadList(modules []*Module) []byte {
	var b strings.Builder
	for _, m := range modules {
		b.WriteString(m.plainPath() + "\n")
	}
	return []byte(b.String())
}

// depFile and aliasFile are modules.dep and modules.alias as depmod(8) writes
// them, restricted to modules that are on the image.
func (x *Modules) depFile(modules []*Module) []byte {
	var b strings.Builder
	for _, m := range modules {
		b.WriteString(m.plainPath() + ":")
		closure, err := x.Closure([]string{m.Name})
		if err == nil {
			for i := len(closure) - 2; i >= 0; i-- {
				b.WriteString(" " + closure[i].plainPath())
			}
		}
		b.WriteString("\n")
	}
	return []byte(b.String())
}

func aliasFile(modules []*Module) []byte {
	var b strings.Builder
	b.WriteString("# Aliases extracted from modules themselves.\n")
	for _, m := range modules {
		if slices.Contains(byNameOnly, m.Name) {
			continue
		}
		for _, alias := range m.Aliases {
			b.WriteString("alias " + alias + " " + m.Name + "\n")
		}
	}
	return []byte(b.String())
}
