package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	pb "oscine.dev/oscine/internal/api/oscinepb"
	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/printable"
)

// installOptions are the flags of oscine install.
type installOptions struct {
	list, yes            bool
	to                   string
	image, release       string
	version, kernel      string
	root                 string
	machine              string
	unconfigured         bool
	keepData, forceGroup bool
}

// here reports that a disk of this machine is written, by this program.
func (o *installOptions) here() bool { return o.image != "" || o.release != "" }

func newInstallCommand(env *Env) *cobra.Command {
	var o installOptions
	var output *string
	c := &cobra.Command{
		Use: "install", Short: "Put Oscine on a disk", Args: exactArgs(0, ""),
		Long: `Put Oscine on a disk, which is erased. A node that was booted from a USB stick or another
disk puts the version that it runs, with its Machine, on one of its other disks. With
--image or --release this machine, running any Linux, takes Oscine from there, as root.

A disk in use is refused: one that is mounted, holds swap, belongs to LVM or RAID, or that the
machine runs from. What would be lost is shown, and asked for. All that was written is read
back; until then no machine starts from the disk, and an installation that was interrupted is
begun again. See docs/install.md.`,
		Example: "  oscine install --list\n  oscine install --to /dev/disk/by-id/nvme-X_123\n  oscine install --to vdb --keep-data --yes\n  sudo oscine install --image oscine-0.1.0-metal-amd64.img --to /dev/sdb --machine node1.yaml",
		RunE: func(c *cobra.Command, _ []string) error {
			if err := o.check(); err != nil {
				return usageError{err}
			}
			machine, err := o.readMachine(env)
			if err != nil {
				return err
			}
			t, err := openTarget(c.Context(), env, &o, machine)
			if err != nil {
				return err
			}
			defer t.close()
			disks, err := t.disks(c.Context())
			if err != nil {
				return err
			}
			if o.list {
				return listDisks(env.Out, disks, *output)
			}
			d, err := t.find(disks, o.to)
			if err != nil {
				return err
			}
			return o.install(c.Context(), env, t, d)
		},
	}
	f := c.Flags()
	f.BoolVar(&o.list, "list", false, "list the disks of the node, or with --image or --release of this machine, and what is on them")
	f.StringVar(&o.to, "to", "", "disk to erase and install on: one of the names that --list shows")
	f.StringVar(&o.image, "image", "", "take Oscine from a disk image of oscine image build")
	f.StringVar(&o.release, "release", "", "take Oscine from a release folder or its URL; needs --root")
	f.StringVar(&o.root, "root", "", "file of the trusted root metadata, for --release")
	f.StringVar(&o.version, "version", "", "version to take from --release (default: the newest)")
	f.StringVar(&o.kernel, "kernel", "", "kernel flavour to take from --release: cloud, metal or rt (default: the only one)")
	f.StringVar(&o.machine, "machine", "", "file of the new system's Machine (default: that of the node; none with --image or --release)")
	f.BoolVar(&o.unconfigured, "unconfigured", false, "no Machine, as by default with --image or --release: the new system waits for its configuration")
	f.BoolVar(&o.keepData, "keep-data", false, "of a disk with Oscine, write boot loader and system, and leave the data with its Machine")
	f.BoolVar(&o.forceGroup, "force", false, "a disk too that belongs to LVM, RAID or a pool which is not in use")
	f.BoolVar(&o.yes, "yes", false, "do not ask before the disk is erased")
	c.MarkFlagsMutuallyExclusive("list", "to")
	c.MarkFlagsMutuallyExclusive("image", "release")
	c.MarkFlagsMutuallyExclusive("machine", "unconfigured", "keep-data")
	output = addOutput(c)
	return c
}

func (o *installOptions) check() error {
	switch {
	case o.to == "" && !o.list:
		return errors.New("choose --to DISK, or --list to see the disks")
	case o.release != "" && o.root == "" && !o.list:
		return errors.New("--release needs --root: the file of the root metadata that you trust")
	case o.release == "" && (o.root != "" || o.version != "" || o.kernel != ""):
		return errors.New("--root, --version and --kernel belong to --release")
	}
	return nil
}

func (o *installOptions) readMachine(env *Env) ([]byte, error) {
	if o.machine == "" {
		return nil, nil
	}
	text, err := readBounded(env, o.machine, object.MaxBytes, "so not a Machine")
	if err != nil {
		return nil, err
	}
	if _, err := object.ParseMachine(strings.NewReader(string(text))); err != nil {
		return nil, fmt.Errorf("%s: %w", o.machine, err)
	}
	return text, nil
}

// target is the machine whose disk is written.
type target interface {
	disks(ctx context.Context) ([]*pb.Disk, error)
	// find returns the disk of a name, listed or not.
	find(disks []*pb.Disk, name string) (*pb.Disk, error)
	// install erases a disk, and returns the version that is on it.
	install(ctx context.Context, d *pb.Disk, report func(*pb.InstallResponse)) (string, error)
	close()
}

func openTarget(ctx context.Context, env *Env, o *installOptions, machine []byte) (target, error) {
	if o.here() {
		return openHere(ctx, env, o, machine)
	}
	node, err := env.Client()
	if err != nil {
		return nil, err
	}
	return &nodeTarget{node.Installation, o, machine}, nil
}

// install asks, and erases a disk.
func (o *installOptions) install(ctx context.Context, env *Env, t target, d *pb.Disk) error {
	if d.Problem != "" {
		return fmt.Errorf("%s is refused: %s", printable.Text(d.Path), printable.Text(d.Problem))
	}
	if err := o.confirm(env, d); err != nil {
		return err
	}
	p := newProgress(env, "", 0)
	step := ""
	version, err := t.install(ctx, d, func(m *pb.InstallResponse) {
		if m.Step != step {
			p.done()
			step = m.Step
			fmt.Fprintln(env.Err, printable.Text(step))
		}
		p.label, p.total = printable.Text(step), m.TotalBytes
		p.at(m.DoneBytes)
	})
	p.done()
	if err != nil {
		return err
	}
	fmt.Fprintf(env.Out, "%s is on %s, and was read back: restart the machine from it\n", printable.Text(version), printable.Text(d.Path))
	return nil
}

// confirm shows what is lost and asks.
func (o *installOptions) confirm(env *Env, d *pb.Disk) error {
	fmt.Fprintf(env.Err, "%s, %s\n", printable.Text(diskName(d)), printable.Bytes(d.SizeBytes))
	switch {
	case o.keepData:
		fmt.Fprintln(env.Err, "Boot loader and system on it are written; its data partition stays.")
	case len(d.Contents) == 0:
		fmt.Fprintln(env.Err, "All of it will be erased. Nothing is known to be on it.")
	default:
		fmt.Fprintln(env.Err, "All of it will be erased:")
		w := tabwriter.NewWriter(env.Err, 0, 8, 2, ' ', 0)
		for _, c := range d.Contents {
			fmt.Fprintf(w, "  %s\t%s\t%s\t%s\t%s\n", c.Device, printable.Bytes(c.SizeBytes), orDash(printable.Text(c.Name)), orDash(c.Type), orDash(printable.Text(c.Label)))
		}
		if err := w.Flush(); err != nil {
			return err
		}
	}
	return confirmByName(env, o.yes, d.Name)
}

// confirmByName has a person type the name of what is erased.
func confirmByName(env *Env, yes bool, name string) error {
	if yes {
		return nil
	}
	if !isTerminal(env.In) {
		return usageError{errors.New("nothing was changed: nobody can be asked here, so give --yes if that is meant")}
	}
	return askName(env, name)
}

func askName(env *Env, name string) error {
	answer, err := askLine(env, "Type "+printable.Text(name)+" to go on: ")
	if err != nil {
		return err
	}
	if answer != name {
		return errors.New("nothing was changed: the name was not typed")
	}
	return nil
}

func diskName(d *pb.Disk) string {
	if d.Model == "" {
		return d.Path
	}
	return d.Path + " (" + d.Model + ")"
}

func listDisks(out io.Writer, disks []*pb.Disk, output string) error {
	name := func(d *pb.Disk) string { return d.Path }
	return listOf(disks, name, "DISK\tSIZE\tMODEL\tHOLDS\tINSTALL", func(d *pb.Disk, wide bool) string {
		ready := "yes"
		switch {
		case d.Problem != "":
			ready = "no: " + d.Problem
		case d.Member:
			ready = "with --force"
		}
		path := "/dev/" + d.Name
		if wide {
			path = strings.Join(d.Names, ",")
		}
		return printable.Text(path) + "\t" + printable.Bytes(d.SizeBytes) + "\t" + orDash(printable.Text(d.Model)) + "\t" + orDash(holds(d)) + "\t" + oneLine(ready)
	}).print(out, output)
}

// holds is what lies on a disk, in a few words.
func holds(d *pb.Disk) string {
	var all []string
	for _, c := range d.Contents {
		what := c.Label
		if what == "" {
			what = c.Name
		}
		text := strings.TrimSpace(c.Type + " " + what)
		if text == "" {
			text = c.Device
		}
		all = append(all, printable.Text(text))
	}
	return strings.Join(all, ", ")
}

// nodeTarget is a node, which writes one of its own disks.
type nodeTarget struct {
	node interface {
		ListDisks(context.Context, *connect.Request[pb.ListDisksRequest]) (*connect.Response[pb.ListDisksResponse], error)
		Install(context.Context, *connect.Request[pb.InstallRequest]) (*connect.ServerStreamForClient[pb.InstallResponse], error)
	}
	o       *installOptions
	machine []byte
}

func (t *nodeTarget) close() {}

func (t *nodeTarget) disks(ctx context.Context) ([]*pb.Disk, error) {
	resp, err := t.node.ListDisks(ctx, connect.NewRequest(&pb.ListDisksRequest{}))
	if err != nil {
		return nil, err
	}
	return resp.Msg.Disks, nil
}

func (t *nodeTarget) find(disks []*pb.Disk, name string) (*pb.Disk, error) {
	var found *pb.Disk
	for _, d := range disks {
		if !slices.ContainsFunc(d.Names, func(n string) bool {
			return n == name || n == "/dev/"+name || n == "/dev/disk/by-id/"+name
		}) {
			continue
		}
		if found != nil {
			return nil, fmt.Errorf("%s is the name of both /dev/%s and /dev/%s: give one of those", name, found.Name, d.Name)
		}
		found = d
	}
	if found != nil {
		return found, nil
	}
	return nil, fmt.Errorf("the node has no disk %s: see oscine install --list", name)
}

func (t *nodeTarget) install(ctx context.Context, d *pb.Disk, report func(*pb.InstallResponse)) (string, error) {
	stream, err := t.node.Install(ctx, connect.NewRequest(&pb.InstallRequest{
		Disk: "/dev/" + d.Name, Path: d.Path, SizeBytes: d.SizeBytes, Machine: string(t.machine), Unconfigured: t.o.unconfigured, KeepData: t.o.keepData, Force: t.o.forceGroup,
	}))
	if err != nil {
		return "", err
	}
	defer stream.Close()
	version := ""
	for stream.Receive() {
		if m := stream.Msg(); m.Version != "" {
			version = m.Version
		} else {
			report(m)
		}
	}
	if err := stream.Err(); err != nil {
		return "", err
	}
	if version == "" {
		return "", errors.New("the node ended the installation without a result: install again")
	}
	return version, nil
}
