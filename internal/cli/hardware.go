package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"oscine.dev/oscine/internal/api/oscinepb"
	"oscine.dev/oscine/internal/client"
	"oscine.dev/oscine/internal/hardware"
	"oscine.dev/oscine/internal/hardware/render"
	"oscine.dev/oscine/internal/inventory"
)

// hardwareFlags are the flags of oscine hardware.
type hardwareFlags struct {
	root, topology string
	output         *string
	explain        string
	watch          bool
}

func newHardwareCommand(env *Env) *cobra.Command {
	var f hardwareFlags
	c := &cobra.Command{
		Use:   "hardware",
		Short: "Show the map of a machine: cores, caches, memory, devices and the links between them",
		Long: `Show the map of a machine.

With a context the map is the node's. Without one, or with --root /, it is this
machine's. --root also reads a directory that holds the sys and proc of another
machine, or an archive of one as oscine hardware record makes it. --topology
reads the topology file of NCCL or RCCL that a cloud gives for an instance.`,
		Example: `  oscine hardware -o svg > machine.svg
  oscine hardware --explain gpu0
  oscine hardware path gpu0 ib0`,
		Args: exactArgs(0, "no argument"),
		RunE: func(c *cobra.Command, _ []string) error {
			if f.watch {
				return f.follow(c.Context(), env)
			}
			m, err := f.machine(c.Context(), env)
			if err != nil {
				return err
			}
			if c.Flags().Changed("explain") {
				return writeFacts(env.Out, m, f.explain)
			}
			return writeHardware(env.Out, m, *f.output)
		},
	}
	c.PersistentFlags().StringVar(&f.root, "root", "", "read the machine under this directory or archive; / is this machine")
	c.PersistentFlags().StringVar(&f.topology, "topology", "", "read a topology file of NCCL or RCCL")
	c.MarkFlagsMutuallyExclusive("root", "topology")
	f.output = addOutput(c, "dot", "svg")
	c.Flags().StringVar(&f.explain, "explain", "", "tell where each fact of a device was read (gpu0, eth0, node1, cpu3, a PCI address)")
	c.Flags().BoolVar(&f.watch, "watch", false, "go on and print what changes")
	c.AddCommand(newHardwarePathCommand(env, &f), newHardwareMatrixCommand(env, &f), newHardwareAttributesCommand(env, &f), newHardwareRecordCommand(env, &f), newHardwareCDICommand(env, &f))
	return c
}

// machine reads the map from --root or --topology, from the node of the
// context, or from this machine where there is no context.
func (f *hardwareFlags) machine(ctx context.Context, env *Env) (*hardware.Machine, error) {
	if f.root != "" {
		return localMachine(ctx, f.root)
	}
	if f.topology != "" {
		return readTopology(f.topology)
	}
	node, err := env.Client()
	if env.Context == "" && errors.Is(err, client.ErrNoContext) {
		return localMachine(ctx, "/")
	}
	if err != nil {
		return nil, err
	}
	reply, err := node.Hardware.Describe(ctx, connect.NewRequest(&oscinepb.HardwareRequest{}))
	if err != nil {
		return nil, err
	}
	return hardware.Decode(reply.Msg.GetJson())
}

// localMachine maps a root. On this machine the helpers that come with Oscine
// add what only a vendor's driver knows; without them the map says less.
func localMachine(ctx context.Context, root string) (*hardware.Machine, error) {
	if err := rootIsThere("--root", root); err != nil {
		return nil, err
	}
	m, err := hardware.Discover(root)
	if err != nil || root != "/" {
		return m, err
	}
	_, err = hardware.AskDrivers(ctx, m, hardware.Companions(m)...)
	return m, err
}

// rootIsThere refuses a root that a person mistyped as a flag's value.
func rootIsThere(flag, root string) error {
	const advice = "give a directory that holds sys and proc, or an archive as oscine hardware record makes it"
	info, err := os.Stat(root)
	if err != nil {
		return fmt.Errorf("%s %w: %s", flag, unreadable(root, err), advice)
	}
	there := func(name string) bool {
		_, err := os.Stat(filepath.Join(root, name))
		return err == nil
	}
	if info.IsDir() && !there("sys") && !there("proc") {
		return fmt.Errorf("%s %s: it holds neither sys nor proc: %s", flag, root, advice)
	}
	return nil
}

func readTopology(file string) (*hardware.Machine, error) {
	r, err := os.Open(file)
	if err != nil {
		return nil, unreadable(file, err)
	}
	defer r.Close()
	t, err := hardware.ReadTopology(r)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return t.Machine()
}

// follow prints the map once and then every change as it comes.
func (f *hardwareFlags) follow(ctx context.Context, env *Env) error {
	if f.topology != "" || f.explain != "" {
		return usageError{errors.New("--watch goes with neither --topology nor --explain")}
	}
	_, watch, err := watching(env, f.root)
	if err != nil {
		return err
	}
	first := true
	return watch(ctx, 0, func(news hardware.News) error {
		if first {
			first = false
			return writeHardware(env.Out, news.Machine, *f.output)
		}
		for _, change := range news.Changes {
			if err := f.printChange(env.Out, change); err != nil {
				return err
			}
		}
		return nil
	})
}

func (f *hardwareFlags) printChange(w io.Writer, c hardware.Change) error {
	now := time.Now()
	if *f.output == outputJSON {
		return json.NewEncoder(w).Encode(struct {
			Time time.Time `json:"time"`
			hardware.Change
		}{now, c})
	}
	_, err := fmt.Fprintf(w, "%s  %s  %s\n", now.Format(time.TimeOnly), c.Device, c.What)
	return err
}

// writeHardware prints a map in one of the output formats.
func writeHardware(w io.Writer, m *hardware.Machine, output string) error {
	switch output {
	case outputName:
		return listing{names: deviceNames(m)}.print(w, output)
	case "dot":
		return render.DOT(w, m)
	case "svg":
		return render.SVG(w, m)
	case "json":
		data, err := hardware.Encode(m)
		if err != nil {
			return err
		}
		_, err = w.Write(data)
		return err
	case "yaml":
		return writeHardwareYAML(w, m)
	}
	return render.Tree(w, m, output == outputWide)
}

// deviceNames are the names by which commands take the devices of a map.
func deviceNames(m *hardware.Machine) []string {
	var names []string
	for _, d := range inventory.Machine(m, "").Devices {
		names = append(names, d.ID)
	}
	return names
}

// writeHardwareYAML prints the JSON document as YAML: same names, same order.
func writeHardwareYAML(w io.Writer, m *hardware.Machine) error {
	data, err := hardware.Encode(m)
	if err != nil {
		return err
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		return fmt.Errorf("convert to YAML: %w", err)
	}
	plainStyle(&doc)
	enc := yaml.NewEncoder(w)
	enc.SetIndent(2)
	if err := enc.Encode(&doc); err != nil {
		return fmt.Errorf("write YAML: %w", err)
	}
	return enc.Close()
}

// plainStyle drops JSON's braces and quotes where YAML needs none. Strings
// that would read as numbers or dates keep their quotes.
func plainStyle(n *yaml.Node) {
	if n.Kind != yaml.ScalarNode || !slices.Contains([]string{"!!str"}, n.Tag) {
		n.Style = 0
	} else if n.Value != "" && strings.Trim(n.Value, "0123456789,-_.:+xXabcdefABCDEF") != "" {
		n.Style = 0
	}
	for _, child := range n.Content {
		plainStyle(child)
	}
}

func writeFacts(w io.Writer, m *hardware.Machine, device string) error {
	facts, err := m.Explain(device)
	if err != nil {
		return err
	}
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	for _, f := range facts {
		fmt.Fprintf(t, "%s\t%s\t%s\n", f.Name, f.Value, f.Path)
	}
	return t.Flush()
}

func newHardwarePathCommand(env *Env, f *hardwareFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "path DEVICE DEVICE",
		Short: "Tell how far one device is from another, over what and at which bandwidth",
		Long: `Tell how far one device is from another, over what and at which bandwidth.

Devices are named as oscine hardware names them (gpu0, eth0, nvme0n1), by their
PCI address, or as NUMA node (node1) or CPU (cpu3).`,
		Args: exactArgs(2, "two devices"),
		RunE: func(c *cobra.Command, args []string) error {
			m, err := f.machine(c.Context(), env)
			if err != nil {
				return err
			}
			p, err := m.Between(args[0], args[1])
			if err != nil {
				return err
			}
			return writePath(env.Out, p)
		},
	}
}

func newHardwareMatrixCommand(env *Env, f *hardwareFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "matrix",
		Short: "Show how near all accelerators and RDMA adapters are to each other",
		Long: `Show how near all accelerators and RDMA adapters are to each other, in the words
of nvidia-smi topo -m:

  NV18  18 NVLinks     XGMI  AMD's link     PIX  one PCIe switch
  PXB   several switches     PHB  one root complex
  NODE  one NUMA node        SYS  different NUMA nodes`,
		Args: exactArgs(0, "no argument"),
		RunE: func(c *cobra.Command, _ []string) error {
			m, err := f.machine(c.Context(), env)
			if err != nil {
				return err
			}
			return render.Matrix(env.Out, m)
		},
	}
}

func writePath(w io.Writer, p hardware.Path) error {
	_, err := fmt.Fprintf(w, "%s – %s  %s  %s", p.A, p.B, p.Proximity, p.Proximity.Meaning())
	if err == nil && p.BytesPerSecond > 0 {
		_, err = fmt.Fprintf(w, "  %.4g GB/s", p.BytesPerSecond/1e9)
	}
	if err == nil && p.Distance > 0 {
		_, err = fmt.Fprintf(w, "  node distance %d", p.Distance)
	}
	if err == nil && len(p.Over) > 0 {
		_, err = fmt.Fprintf(w, "\n  over %s", strings.Join(p.Over, " → "))
	}
	if err == nil {
		_, err = fmt.Fprintln(w)
	}
	return err
}

func newHardwareCDICommand(env *Env, f *hardwareFlags) *cobra.Command {
	var dir string
	c := &cobra.Command{
		Use:   "cdi",
		Short: "Write CDI specifications of this machine's usable accelerators, for any container runtime",
		Long: `Write CDI specifications of the usable accelerators of this machine, or of the one
under --root, for any container runtime here. Those of another machine are printed,
unless --dir says where to write them. A node of Oscine keeps its own.`,
		Args: exactArgs(0, "no argument"),
		RunE: func(c *cobra.Command, _ []string) error {
			if f.topology != "" {
				return usageError{errors.New("a --topology file says nothing of device nodes: give --root")}
			}
			m, err := localMachine(c.Context(), cmp.Or(f.root, "/"))
			if err != nil {
				return err
			}
			if f.root != "" && f.root != "/" && !c.Flags().Changed("dir") {
				enc := json.NewEncoder(env.Out)
				enc.SetIndent("", "  ")
				return enc.Encode(hardware.CDI(m))
			}
			changed, err := hardware.WriteCDI(dir, m)
			for _, name := range changed {
				fmt.Fprintln(env.Out, filepath.Join(dir, name))
			}
			if err == nil && len(changed) == 0 {
				fmt.Fprintf(env.Err, "%s is up to date\n", dir)
			}
			return err
		},
	}
	c.Flags().StringVar(&dir, "dir", "/var/run/cdi", "directory of the specifications")
	return c
}
