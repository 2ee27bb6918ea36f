package machine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"oscine.dev/oscine/internal/debian"
	"oscine.dev/oscine/internal/release"
)

// arguments are QEMU's; files are relative to the machine's folder, its
// working folder, because a socket's path must be short.
func (m *Machine) arguments(ctx context.Context) ([]string, error) {
	o := m.record.Options
	args := []string{
		"-name", "oscine-" + o.Name, "-nodefaults", "-no-user-config", "-display", "none",
		"-m", fmt.Sprintf("%dM", o.Memory>>20), "-smp", o.CPUs,
		"-chardev", "socket,id=console,path=" + consoleSocket + ",server=on,wait=off,logfile=" + consoleLogFile + ",logappend=on",
		"-serial", "chardev:console",
		"-qmp", "unix:" + qmpSocket + ",server=on,wait=off",
		"-device", "virtio-rng-pci",
	}
	args = append(args, platform(o, m.record.Accel)...)
	args = append(args, disk(o)...)
	args = append(args, network(o)...)
	if m.resumes {
		args = append(args, "-incoming", "defer")
	}
	if o.NoReboot {
		args = append(args, "-no-reboot")
	}
	if _, err := os.Stat(filepath.Join(m.dir, configFile)); err == nil {
		args = append(args, "-fw_cfg", "name="+release.FirmwareMachineName+",file="+configFile)
	}
	boot, err := m.bootArguments(ctx)
	if err != nil {
		return nil, err
	}
	return append(append(args, boot...), o.ExtraArgs...), nil
}

func platform(o Options, accel string) []string {
	var args []string
	cpu, tpm := "max", "tpm-crb"
	switch o.Arch {
	case "amd64":
		board := "q35"
		if o.SecureBoot {
			// Only code in system management mode may change the firmware's variables.
			board += ",smm=on"
			args = append(args, "-global", "driver=cfi.pflash01,property=secure,value=on")
		}
		// The i6300esb is the one watchdog that Debian's cloud kernel can drive.
		// By vmgenid a guest knows that it was resumed and seeds its random numbers.
		args = append(args, "-M", board, "-device", "i6300esb", "-device", "vmgenid,guid=auto")
	case "arm64":
		args = append(args, "-M", "virt,gic-version=3")
		cpu = "max,pauth-impdef=on" // the architected algorithm costs half the speed under emulation
		tpm = "tpm-tis-device"
	}
	if o.TPM {
		args = append(args, "-chardev", "socket,id=tpm,path="+tpmSocket, "-tpmdev", "emulator,id=tpm0,chardev=tpm", "-device", tpm+",tpmdev=tpm0")
	}
	switch {
	case o.ICount != "":
		return append(args, "-cpu", cpu, "-accel", "tcg,thread=single", "-icount", "shift="+o.ICount+",sleep=off")
	case accel == "kvm":
		return append(args, "-cpu", "host", "-accel", "kvm")
	}
	return append(args, "-cpu", cpu, "-accel", "tcg,thread=multi")
}

func disk(o Options) []string {
	drive := "if=none,id=disk0,format=qcow2,discard=unmap,file=" + diskFile
	if o.Volatile {
		drive += ",cache=unsafe"
	}
	return []string{"-drive", drive, "-device", "virtio-blk-pci,drive=disk0,bootindex=1"}
}

func network(o Options) []string {
	user := "user,id=user0"
	for _, p := range o.Ports {
		user += fmt.Sprintf(",hostfwd=tcp:127.0.0.1:%d-:%d", p.Host, p.Guest)
	}
	device := []string{"-device", "virtio-net-pci,romfile=,netdev="}
	args := []string{"-netdev", user}
	if o.ICount == "" {
		device[1] += "user0"
		return append(args, device...)
	}
	// With several processors that count instructions, packets have to come at
	// moments of virtual time.
	device[1] += "net0"
	args = append(args, "-netdev", "hubport,id=hub0,hubid=0,netdev=user0", "-netdev", "hubport,id=net0,hubid=0",
		"-object", "filter-buffer,id=filter0,netdev=net0,interval=20")
	return append(args, device...)
}

// bootArguments are the kernel or the firmware.
func (m *Machine) bootArguments(ctx context.Context) ([]string, error) {
	o := m.record.Options
	if o.Direct {
		commandLine, err := os.ReadFile(filepath.Join(m.dir, commandLineFile))
		if err != nil {
			return nil, err
		}
		appended := strings.TrimSpace(string(commandLine) + " " + o.KernelArgs)
		return []string{"-kernel", kernelFile, "-initrd", initramfsFile, "-append", appended}, nil
	}
	source, err := debian.Open(io.Discard)
	if err != nil {
		return nil, err
	}
	firmware, err := source.Firmware(ctx, o.Arch, o.SecureBoot)
	if err != nil {
		return nil, err
	}
	if strings.ContainsRune(firmware.Code, ',') {
		return nil, errors.New("QEMU cannot open firmware below a folder with a comma in its name: " + firmware.Code)
	}
	return []string{
		"-drive", "if=pflash,unit=0,format=raw,readonly=on,file=" + firmware.Code,
		"-drive", "if=pflash,unit=1,format=raw,file=" + varsFile,
	}, nil
}
