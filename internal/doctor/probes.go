package doctor

// nodeProbes lists what a node has a use for; live adds what can only be tried
// on the running kernel.
func nodeProbes(live bool) []probe {
	probes := []probe{
		{"cgroup v2", "every limit, weight and core of a workload",
			"boot the host with systemd.unified_cgroup_hierarchy=1 on the kernel command line; until then limits are best effort", cgroupVersion},
		{"cgroup controllers", "limits of CPU, memory, processes and I/O",
			"remove cgroup_disable= from the kernel command line, and on hybrid hosts boot with systemd.unified_cgroup_hierarchy=1", cgroupControllers},
		{"cpuset partitions", "isolated cores for the class realtime",
			"needs cgroup v2 with the cpuset controller and Linux 6.7 or later", cpusetPartitions},
		{"pressure stall information", "refusing work before a node stalls, health of nodes",
			"boot with psi=1 on the kernel command line", pressure},
		{"transparent huge pages on request", "steady latency: with \"always\" the kernel's page merger stalls realtime work for seconds",
			"echo madvise > /sys/kernel/mm/transparent_hugepage/enabled", hugePages},
		{"PREEMPT_RT", "the tightest wake-up latencies; the class realtime works without it",
			"oscine image build --kernel rt, or the host distribution's linux-image-rt package", preemptRT},
		{"sched_ext", "optional schedulers with deadlines per request",
			"needs Linux 6.12 or later with CONFIG_SCHED_CLASS_EXT, as Oscine's own image has", schedExt},
		{"BTF", "loading BPF programs, such as those of sched_ext",
			"needs a kernel with CONFIG_DEBUG_INFO_BTF, as distributions build it", btf},
		{"seccomp", "the system call filter of every container",
			"needs a kernel with CONFIG_SECCOMP_FILTER", seccomp},
		{"TPM 2.0", "measured boot and attestation",
			"switch the TPM on in the firmware; a virtual machine needs swtpm", tpm},
		{"watchdog", "a reboot when the userland hangs",
			"load the driver of the board's watchdog (iTCO_wdt, sp5100_tco, i6300esb in QEMU) or softdog", watchdog},
	}
	if live {
		probes = append(probes, liveProbes()...)
	}
	return probes
}

func liveProbes() []probe {
	return []probe{
		{"root and capabilities", "everything that oscined does to the kernel", "start oscined as root with all capabilities", capabilities},
		{"user namespaces", "containers whose root is nobody outside",
			"sysctl user.max_user_namespaces=15000, and kernel.unprivileged_userns_clone=1 where it exists", userNamespaces},
		{"id-mapped mounts", "volumes with the right owner inside user namespaces",
			"needs Linux 5.12 or later and a file system that supports it: ext4, xfs, btrfs, tmpfs from 6.3", idMappedMounts},
		{"overlayfs", "the layers of images", "modprobe overlay", overlay},
		{"erofs from a file", "engine packs", "modprobe erofs; Linux 6.12 or later mounts the file without a loop device", erofs},
		{"dm-verity", "the verified root of the image, and packs whose blocks are checked when they are read; a hosted node without it checks a pack as a whole when it mounts it", "modprobe dm-verity loop", dmVerity},
		{"network namespaces", "the network of workloads", "needs a kernel with CONFIG_NET_NS and the right to use it", networkNamespaces},
		{"veth and bridge", "the network of workloads", "modprobe veth bridge", vethAndBridge},
		{"nf_tables", "published ports, and workloads kept apart", "modprobe nf_tables nft_chain_nat nft_nat nft_masq nft_fib_ipv4 nft_ct nft_reject_ipv4", nfTables},
		{"forwarding", "published ports, and workloads that reach the outside",
			"let that firewall accept oscine0; beside Docker: iptables -I DOCKER-USER -i oscine0 -j ACCEPT, and the same with -o", forwarding},
		{"Landlock", "a second wall around functions and engine workers", "boot with lsm=landlock,… on the kernel command line", landlock},
		{"SCHED_FIFO", "the class realtime", "start oscined as root; with cgroup version 1 boot with systemd.unified_cgroup_hierarchy=1", fifo},
		{"SCHED_DEADLINE", "reserved CPU time in the class realtime", "start oscined as root in a cgroup that has its CPUs for itself", deadline},
		{"CPU wake-up latency control", "realtime cores that never sleep deeply", "needs /dev/cpu_dma_latency (CONFIG_PM) and root", wakeLatency},
		{"locked memory", "tensors and realtime workers that are never paged out", "raise LimitMEMLOCK of oscined's service to infinity", lockedMemory},
		{"synchronised clock", "certificates, and times in logs that compare", "on Oscine's image let the node reach a time server (spec.time.servers, those of DHCP or Debian's); on other hosts start systemd-timesyncd or chrony", clockSync},
	}
}

func toolProbes() []probe {
	return []probe{
		{"KVM", "local machines at full speed", "load kvm_intel or kvm_amd, switch virtualisation on in the firmware, join the group kvm; without it machines are emulated, 10 to 30 times slower", kvm},
		{"QEMU 10", "local machines", "nothing to do: oscine machine fetches Debian's into its cache; or apt-get install qemu-system on Debian 13", qemu},
		{"mke2fs", "the data partition of images", "apt-get install e2fsprogs (make setup does)", program("mke2fs")},
		{"apt-get", "the pinned Debian packages of the image", "build images on Debian or Ubuntu, or in a container of one", program("apt-get")},
		{"go", "Oscine's own programs", "install Go from https://go.dev/dl/", program("go")},
		{"pip3", "make packs: the pinned wheels of engines", "apt-get install python3-pip (make setup does)", program("pip3")},
		{"C compiler", "runc of hosted nodes, linked statically", "apt-get install gcc libc6-dev libseccomp-dev pkg-config (make setup does)", program("gcc")},
	}
}
