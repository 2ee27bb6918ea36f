package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"oscine.dev/oscine/internal/client"
	"oscine.dev/oscine/internal/machine"
	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/quantity"
)

// apiPort is the guest's port of the API.
const apiPort = 7443

func newMachineCommand(env *Env) *cobra.Command {
	c := &cobra.Command{
		Use:   "machine",
		Short: "Local machines in QEMU",
		Long: `Run Oscine images in QEMU on this computer, without root: with KVM where it
really boots a kernel, else by emulation, so that amd64 and arm64 both work.
A machine keeps its disk between starts and never writes to its image.`,
	}
	c.AddCommand(newMachineStartCommand(env), newMachineStopCommand(env), newMachineListCommand(env),
		newMachineConsoleCommand(env), newMachineDeleteCommand(env))
	return c
}

// machineFlags are the flags of machine start as typed.
type machineFlags struct {
	machine.Options
	memory, disk, config string
	ports                []string
	output               *string
}

func newMachineStartCommand(env *Env) *cobra.Command {
	var f machineFlags
	c := &cobra.Command{
		Use:               "start NAME",
		ValidArgsFunction: completeMachine(),
		Short:             "Make a machine from an image and start it, or start a stopped one again",
		Long: `Make the machine NAME from the image given by --image and start it; without
--image, start the stopped machine NAME again with its disk.

The node's API is forwarded to port 7443 of this computer, or to a free port
when that one is taken. More ports: --port GUEST (a free one is chosen) or
--port HOST:GUEST. All listen on 127.0.0.1 only. The machine runs on when the
command is over.`,
		Example: "  oscine machine start edge1 --image out/oscine-amd64.img --config-file edge1/edge1.yaml\n" +
			"  oscine machine start numa --image out/oscine-amd64.img --direct --cpus 4,sockets=2,cores=2 --port 8080",
		Args: exactArgs(1, "NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			f.Name = args[0]
			return startMachine(cmd.Context(), env, f)
		},
	}
	c.Flags().StringVar(&f.Image, "image", "", "disk image, as oscine image build makes it")
	c.Flags().StringVar(&f.Arch, "arch", "", "architecture of the image, amd64 or arm64 (default this computer's)")
	c.Flags().StringVar(&f.memory, "memory", "2GiB", "memory")
	c.Flags().StringVar(&f.CPUs, "cpus", "2", "processors: a number, or QEMU's -smp such as 4,sockets=2,cores=2")
	c.Flags().StringVar(&f.disk, "disk", "", "size of the disk (default the image's); the data partition grows to it")
	c.Flags().StringArrayVar(&f.ports, "port", nil, "forward [HOST:]GUEST, a TCP port; can be repeated")
	c.Flags().StringVar(&f.config, "config-file", "", "Machine manifest for the node; a missing key and certificate are created (default: the node waits for a manifest in maintenance mode)")
	c.Flags().BoolVar(&f.Direct, "direct", false, "start the kernel without firmware and boot loader: faster, no slots")
	c.Flags().BoolVar(&f.SecureBoot, "secureboot", false, "firmware that checks signatures, in setup mode: an image built with --secureboot enrols its keys (see docs/trust.md)")
	c.Flags().BoolVar(&f.TPM, "tpm", false, "an emulated TPM 2.0")
	c.Flags().StringVar(&f.KernelArgs, "kernel-args", "", "more kernel arguments, with --direct")
	c.Flags().StringVar(&f.Accel, "accel", "", "kvm or tcg (emulation); default kvm where it really boots")
	c.Flags().StringVar(&f.ICount, "icount", "", "count instructions as time, 2^N ns each: slow, repeatable measurements")
	c.Flags().StringArrayVar(&f.ExtraArgs, "qemu-arg", nil, "further argument of QEMU; can be repeated")
	f.output = addOutput(c)
	return c
}

func startMachine(ctx context.Context, env *Env, f machineFlags) error {
	o := f.Options
	var err error
	if o.Memory, err = quantity.ParseBytes(f.memory); err != nil {
		return usageError{fmt.Errorf("--memory %q: %w", f.memory, err)}
	}
	if f.disk != "" {
		if o.DiskSize, err = quantity.ParseBytes(f.disk); err != nil {
			return usageError{fmt.Errorf("--disk %q: %w", f.disk, err)}
		}
	}
	if o.Ports, err = parsePorts(f.ports); err != nil {
		return usageError{err}
	}
	if f.config != "" {
		if o.Config, err = readFileOrStdin(env, f.config); err != nil {
			return err
		}
		if o.Config, err = withLocalIdentity(o.Config, filepath.Dir(f.config)); err != nil {
			return fmt.Errorf("%s:\n%w", f.config, err)
		}
	}
	var before []machine.Port // of a machine that starts again
	if o.Image == "" {
		if m, err := machine.Open("", o.Name); err == nil { // else Start says what is wrong
			before = m.Options().Ports
		}
	}
	m, err := machine.Start(ctx, withAPIPort(o, before))
	if err != nil {
		return err
	}
	if err := followAddress(env, nodeOf(m), m.Addr(apiPort)); err != nil {
		return err
	}
	return listing{describeMachine(m), []string{m.Name()}, func(w io.Writer, _ bool) error {
		fmt.Fprintf(w, "machine %s is starting (%s, %s, %s boot)\n", m.Name(), m.Options().Arch, m.Accel(), bootWay(m.Options()))
		_, err := fmt.Fprintf(w, "API will be at %s; watch it boot with: oscine machine console %s\n", m.Addr(apiPort), m.Name())
		return err
	}}.print(env.Out, *f.output)
}

// nodeOf is the name of the node that a machine was configured as when it was
// started; empty if unknown.
func nodeOf(m *machine.Machine) string {
	text, err := m.Config()
	if err != nil {
		return ""
	}
	configured, err := object.ParseMachine(bytes.NewReader(text))
	if err != nil {
		return ""
	}
	return configured.Metadata.Name
}

// followAddress points the context of a node at the port that was chosen for
// its machine, where the context says that it is on this computer.
func followAddress(env *Env, node, address string) error {
	path, err := env.configPath()
	if err != nil || node == "" {
		return nil // without a client configuration there is nothing to update
	}
	config, err := client.Load(path)
	if err != nil {
		return err
	}
	for name, ctx := range config.Contexts {
		host, _, err := net.SplitHostPort(ctx.Address)
		if ctx.ServerName != node || err != nil || host != "127.0.0.1" || ctx.Address == address {
			continue
		}
		ctx.Address = address
		if err := config.Save(path); err != nil {
			return err
		}
		fmt.Fprintf(env.Err, "context %q points at %s now\n", name, address)
	}
	return nil
}

// withAPIPort adds the API's port: where it was before, for a machine that
// starts again, else on the same number of this computer where that is free.
func withAPIPort(o machine.Options, before []machine.Port) machine.Options {
	if o.Image == "" && len(o.Ports) == 0 {
		return o // a machine that starts again keeps its ports
	}
	toAPI := func(p machine.Port) bool { return p.Guest == apiPort }
	if slices.ContainsFunc(o.Ports, toAPI) {
		return o
	}
	if i := slices.IndexFunc(before, toAPI); i >= 0 {
		o.Ports = append([]machine.Port{before[i]}, o.Ports...)
		return o
	}
	host := apiPort
	if !machine.PortFree(host) {
		host = 0
	}
	o.Ports = append([]machine.Port{{Host: host, Guest: apiPort}}, o.Ports...)
	return o
}

func bootWay(o machine.Options) string {
	if o.Direct {
		return "direct"
	}
	return "UEFI"
}

func parsePorts(texts []string) ([]machine.Port, error) {
	var ports []machine.Port
	for _, text := range texts {
		host, guest, both := strings.Cut(text, ":")
		if !both {
			host, guest = "0", host
		}
		var p machine.Port
		var err1, err2 error
		p.Host, err1 = strconv.Atoi(host)
		p.Guest, err2 = strconv.Atoi(guest)
		if errors.Join(err1, err2) != nil || p.Guest < 1 || p.Guest > 65535 || p.Host < 0 || p.Host > 65535 {
			return nil, usageError{fmt.Errorf("--port %q: want GUEST or HOST:GUEST, numbers up to 65535", text)}
		}
		ports = append(ports, p)
	}
	return ports, nil
}

func newMachineStopCommand(env *Env) *cobra.Command {
	var force bool
	c := &cobra.Command{
		Use:               "stop NAME",
		ValidArgsFunction: completeMachine(),
		Short:             "Power a machine off",
		Long: fmt.Sprintf(`Press the machine's power button and wait until it has shut down. One that is
not off after %s has its plug pulled, as --force does at once.`, machine.PowerOffTimeout),
		Args: exactArgs(1, "NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			m, err := machine.Open("", args[0])
			if err != nil {
				return err
			}
			if force {
				if !m.Running() {
					return fmt.Errorf("machine %s: %w", m.Name(), machine.ErrNotRunning)
				}
				if err := m.Kill(); err != nil {
					return err
				}
				fmt.Fprintf(env.Out, "machine %s is off\n", m.Name())
				return nil
			}
			clean, err := m.Stop(cmd.Context())
			if err != nil {
				return err
			}
			if !clean {
				fmt.Fprintf(env.Err, "machine %s did not power itself off: its plug was pulled\n", m.Name())
			}
			fmt.Fprintf(env.Out, "machine %s is off\n", m.Name())
			return nil
		},
	}
	c.Flags().BoolVar(&force, "force", false, "pull the plug at once")
	return c
}

// machineInfo is a machine as list and machine start show it.
type machineInfo struct {
	Name    string         `json:"name"`
	State   string         `json:"state"` // running or off
	Arch    string         `json:"arch"`
	Boot    string         `json:"boot"` // UEFI or direct
	Accel   string         `json:"accel"`
	CPUs    string         `json:"cpus"`
	Memory  int64          `json:"memoryBytes"`
	Image   string         `json:"image"`
	PID     int            `json:"pid,omitempty"`
	CPU     float64        `json:"cpuSeconds,omitempty"` // used by QEMU since the start
	Started time.Time      `json:"started"`
	Ports   []machine.Port `json:"ports"`
	Console string         `json:"consoleLog"`
}

func describeMachine(m *machine.Machine) machineInfo {
	o := m.Options()
	i := machineInfo{
		Name: m.Name(), State: "off", Arch: o.Arch, Boot: bootWay(o), Accel: m.Accel(), CPUs: o.CPUs, Memory: o.Memory,
		Image: o.Image, Started: m.Started(), Ports: o.Ports, Console: m.ConsoleLog(), PID: m.PID(),
	}
	if i.PID != 0 {
		i.State = "running"
	}
	if cpu, err := m.CPUTime(); err == nil {
		i.CPU = cpu.Seconds()
	}
	return i
}

func newMachineListCommand(env *Env) *cobra.Command {
	var output *string
	c := &cobra.Command{
		Use:   "list",
		Short: "List the machines of this computer",
		Args:  exactArgs(0, ""),
		RunE: func(*cobra.Command, []string) error {
			machines, err := machine.List("")
			if err != nil {
				return err
			}
			infos := []machineInfo{}
			var names []string
			for _, m := range machines {
				infos, names = append(infos, describeMachine(m)), append(names, m.Name())
			}
			return listing{infos, names, func(w io.Writer, _ bool) error { return printMachines(w, infos) }}.print(env.Out, *output)
		},
	}
	output = addOutput(c)
	return c
}

func printMachines(w io.Writer, infos []machineInfo) error {
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintln(t, "NAME\tSTATE\tARCH\tBOOT\tACCEL\tCPUS\tMEMORY\tCPU-S\tPORTS\tIMAGE")
	for _, i := range infos {
		var ports []string
		for _, p := range i.Ports {
			ports = append(ports, fmt.Sprintf("%d:%d", p.Host, p.Guest))
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%d MiB\t%.1f\t%s\t%s\n",
			i.Name, i.State, i.Arch, i.Boot, i.Accel, i.CPUs, i.Memory>>20, i.CPU, strings.Join(ports, " "), i.Image)
	}
	return t.Flush()
}

func newMachineConsoleCommand(env *Env) *cobra.Command {
	var logOnly bool
	c := &cobra.Command{
		Use:               "console NAME",
		ValidArgsFunction: completeMachine(),
		Short:             "Connect to a machine's serial console; Ctrl-] leaves",
		Args:              exactArgs(1, "NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			m, err := machine.Open("", args[0])
			if err != nil {
				return err
			}
			if logOnly {
				return printFile(env.Out, m.ConsoleLog())
			}
			return attachConsole(cmd.Context(), env, m)
		},
	}
	c.Flags().BoolVar(&logOnly, "log", false, "print everything the console has shown, and end")
	return c
}

func printFile(w io.Writer, name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(w, f)
	return err
}

// attachConsole hands every key to the machine while standard input is a
// terminal.
func attachConsole(ctx context.Context, env *Env, m *machine.Machine) error {
	if f, ok := terminalOf(env.In); ok {
		fmt.Fprintf(env.Err, "console of %s, leave with Ctrl-]\n", m.Name())
		state, err := term.MakeRaw(int(f.Fd()))
		if err != nil {
			return fmt.Errorf("terminal: %w", err)
		}
		defer func() { _ = term.Restore(int(f.Fd()), state) }()
	}
	return m.Console(ctx, env.In, env.Out)
}

func newMachineDeleteCommand(env *Env) *cobra.Command {
	var force bool
	c := &cobra.Command{
		Use: "delete NAME", SuggestFor: []string{"rm", "remove"},
		ValidArgsFunction: completeMachine(),
		Short:             "Delete a machine with its disk",
		Args:              exactArgs(1, "NAME"),
		RunE: func(_ *cobra.Command, args []string) error {
			m, err := machine.Open("", args[0])
			if err != nil {
				return err
			}
			if err := m.Delete(force); err != nil {
				return err
			}
			fmt.Fprintf(env.Out, "machine %s deleted, with its disk\n", m.Name())
			return nil
		},
	}
	c.Flags().BoolVar(&force, "force", false, "pull the plug of a running machine first")
	return c
}
