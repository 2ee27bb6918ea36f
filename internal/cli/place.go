package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"oscine.dev/oscine/internal/api/oscinepb"
	"oscine.dev/oscine/internal/client"
	"oscine.dev/oscine/internal/hardware"
	"oscine.dev/oscine/internal/inventory"
	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/place"
	"oscine.dev/oscine/internal/printable"
)

// placeFlags are the flags of oscine place.
type placeFlags struct {
	files           []string
	machine, output string
	explain, defrag bool
}

func newPlaceCommand(env *Env) *cobra.Command {
	var f placeFlags
	c := &cobra.Command{
		Use:   "place -f FILE [--machine DIR|ARCHIVE|FILE|NODE]",
		Short: "Show which part of a machine work would get, and why",
		Long: `Show which cores, memory and devices the workloads and models of a manifest
would get, and why, without giving anything out.

--machine is a directory or archive as oscine hardware record makes it, a map
as oscine hardware -o json writes it, a topology file of NCCL or RCCL (.xml), or
the name of a context: its node with what runs there. Without it, it is the node
of the current context, else this machine. Objects are placed in their order;
where one does not fit, every constraint that fails is told with what would
satisfy it, and the exit status is 1.`,
		Example: `  oscine place -f train.yaml --machine server.tar.zst --explain`,
		Args:    exactArgs(0, "no argument"),
		RunE:    func(c *cobra.Command, _ []string) error { return f.run(c.Context(), env) },
	}
	c.Flags().StringSliceVarP(&f.files, "filename", "f", nil, "manifest files; - is standard input")
	c.Flags().StringVar(&f.machine, "machine", "", "the machine to place on")
	c.Flags().StringVarP(&f.output, "output", "o", "text", "text or json")
	c.Flags().BoolVar(&f.explain, "explain", false, "tell the runner-up too, and why it was not chosen")
	c.Flags().BoolVar(&f.defrag, "defragment", false, "where work does not fit, show which running work to move so that it would")
	return c
}

// placed is what became of one object.
type placed struct {
	Object    string             `json:"object"`
	Placement *place.Placement   `json:"placement,omitempty"`
	Refusal   *place.Unsatisfied `json:"refusal,omitempty"`
	Moves     []place.Move       `json:"moves,omitempty"`
}

func (f *placeFlags) run(ctx context.Context, env *Env) error {
	if len(f.files) == 0 {
		return usageError{errors.New("-f is required: the manifest of what to place; see oscine place --help")}
	}
	if f.output != "text" && f.output != "json" {
		return usageError{fmt.Errorf("-o must be text or json, got %q", f.output)}
	}
	var objects []object.Object
	for _, file := range f.files {
		read, err := readManifest(env, file)
		if err != nil {
			return err
		}
		objects = append(objects, read...)
	}
	state, err := f.state(ctx, env, objects)
	if err != nil {
		return err
	}
	results, err := f.placeAll(ctx, state, objects)
	if err != nil {
		return err
	}
	if f.output == "json" {
		enc := json.NewEncoder(env.Out)
		enc.SetIndent("", "  ")
		if err := enc.Encode(results); err != nil {
			return err
		}
	}
	refused := false
	for i, r := range results {
		refused = refused || r.Refusal != nil
		if f.output == "text" {
			if i > 0 {
				fmt.Fprintln(env.Out)
			}
			f.write(env.Out, r)
		}
	}
	if refused {
		return exitError(1)
	}
	return nil
}

func readManifest(env *Env, file string) ([]object.Object, error) {
	text, err := readFileOrStdin(env, file)
	if err != nil {
		return nil, err
	}
	objects, err := env.Kinds.Parse(bytes.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("%s:\n%w", file, err)
	}
	return objects, nil
}

// placeAll places the objects in order, gangs as a whole.
func (f *placeFlags) placeAll(ctx context.Context, s *place.State, objects []object.Object) ([]placed, error) {
	var results []placed
	done := map[string]bool{}
	for i, obj := range objects {
		placeable, ok := obj.(object.Placeable)
		if !ok {
			return nil, fmt.Errorf("%s: a %s needs no place on a machine", obj.Key(), obj.Key().Kind)
		}
		var requests []place.Request
		if r := placeable.Resources(); r.Gang == nil {
			req, err := object.PlaceRequest(placeable)
			if err != nil {
				return nil, err
			}
			requests = append(requests, req)
		} else if !done[r.Gang.Name] {
			done[r.Gang.Name] = true
			members, err := gang(r.Gang, objects[i:])
			if err != nil {
				return nil, err
			}
			requests = members
		}
		if len(requests) > 0 {
			together, err := f.placeTogether(ctx, s, requests)
			if err != nil {
				return nil, err
			}
			results = append(results, together...)
		}
	}
	return results, nil
}

// gang collects the requests of the members among the objects.
func gang(g *object.Gang, objects []object.Object) ([]place.Request, error) {
	var requests []place.Request
	for _, obj := range objects {
		p, ok := obj.(object.Placeable)
		if !ok || p.Resources().Gang == nil || p.Resources().Gang.Name != g.Name {
			continue
		}
		req, err := object.PlaceRequest(p)
		if err != nil {
			return nil, err
		}
		requests = append(requests, req)
	}
	if len(requests) < g.Size {
		return nil, fmt.Errorf("gang %q has %d members here and needs %d before any starts", g.Name, len(requests), g.Size)
	}
	return requests, nil
}

func (f *placeFlags) placeTogether(ctx context.Context, s *place.State, requests []place.Request) ([]placed, error) {
	placements, err := s.PlaceAll(ctx, requests)
	var refusal *place.Unsatisfied
	if errors.As(err, &refusal) {
		r := placed{Object: refusal.Request, Refusal: refusal}
		if f.defrag && len(requests) == 1 {
			r.Moves, err = s.Defragment(ctx, requests[0])
			if err != nil && !errors.As(err, &refusal) {
				return nil, err
			}
		}
		return []placed{r}, nil
	}
	if err != nil {
		return nil, err
	}
	var results []placed
	for i := range placements {
		results = append(results, placed{Object: requests[i].Name, Placement: &placements[i]})
	}
	return results, nil
}

// state is the machine that --machine names, with what runs there.
func (f *placeFlags) state(ctx context.Context, env *Env, objects []object.Object) (*place.State, error) {
	path := f.machine
	_, err := os.Stat(path)
	switch {
	case path == "":
		h := hardwareFlags{}
		m, err := h.machine(ctx, env)
		if err != nil {
			return nil, err
		}
		return inventory.State(m, m.System.Product)
	case err == nil && !env.knows(path): // generate makes a folder of a context's name
		m, err := readMachine(path)
		if err != nil {
			return nil, err
		}
		return inventory.State(m, filepath.Base(path))
	case err != nil && (!errors.Is(err, fs.ErrNotExist) || strings.ContainsAny(path, "/.")):
		return nil, fmt.Errorf("--machine %w", unreadable(path, err))
	}
	return nodeState(ctx, env, path, objects)
}

// maxMachineFile bounds a hardware map read from a file.
const maxMachineFile = 64 << 20

func readMachine(path string) (*hardware.Machine, error) {
	switch filepath.Ext(path) {
	case ".xml":
		return readTopology(path)
	case ".json":
		r, err := os.Open(path)
		if err != nil {
			return nil, unreadable(path, err)
		}
		defer r.Close()
		data, err := io.ReadAll(io.LimitReader(r, maxMachineFile))
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", path, err)
		}
		return hardware.Decode(data)
	}
	return hardware.Discover(path)
}

// nodeState is a node's machine with all that it runs, but not the objects
// that are about to be placed.
func nodeState(ctx context.Context, env *Env, name string, objects []object.Object) (*place.State, error) {
	named := *env
	named.Context = name
	node, err := named.Client()
	if err != nil {
		return nil, fmt.Errorf("--machine %s is neither a file here nor a context: %w", name, err)
	}
	reply, err := node.Hardware.Describe(ctx, connect.NewRequest(&oscinepb.HardwareRequest{}))
	if err != nil {
		return nil, err
	}
	m, err := hardware.Decode(reply.Msg.GetJson())
	if err != nil {
		return nil, err
	}
	state, err := inventory.State(m, name)
	if err != nil {
		return nil, err
	}
	running, err := node.Objects.Get(ctx, connect.NewRequest(&oscinepb.GetRequest{}))
	if err != nil {
		return nil, err
	}
	replaced := map[object.Key]bool{}
	for _, obj := range objects {
		replaced[obj.Key()] = true
	}
	for _, o := range running.Msg.GetObjects() {
		running, err := client.State(env.Kinds, o)
		if err != nil {
			return nil, fmt.Errorf("what runs on %s: %w", name, err)
		}
		p, ok := running.Object.(object.Placeable)
		if !ok || replaced[p.Key()] {
			continue
		}
		req, err := object.PlaceRequest(p)
		if err != nil {
			return nil, err
		}
		if _, err := state.PlaceRunning(ctx, req); err != nil {
			fmt.Fprintf(env.Err, "oscine: %s runs on %s but is left out here: %v\n", req.Name, name, err)
		}
	}
	return state, nil
}

// write shows one result to a person.
func (f *placeFlags) write(w io.Writer, r placed) {
	if r.Refusal != nil {
		fmt.Fprintf(w, "%s does not fit:\n", r.Object)
		for _, failure := range r.Refusal.Failures {
			fmt.Fprintf(w, "  %s: %s\n      → %s\n", failure.Constraint, failure.Problem, failure.Remedy)
		}
		for _, m := range r.Moves {
			fmt.Fprintf(w, "  it would fit after moving %s to %s\n", m.Name, describePlacement(&m.To))
		}
		return
	}
	p := r.Placement
	fmt.Fprintf(w, "%s\n", r.Object)
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(w, "  %-11s %s\n", name, value)
		}
	}
	cpus := place.FormatCPUs(p.CPUs)
	if p.Request.Exclusive {
		cpus += " exclusive"
	} else {
		cpus += " shared"
	}
	line("CPUs", cpus)
	line("kept idle", place.FormatCPUs(p.Held))
	line("NUMA nodes", place.FormatCPUs(p.NUMANodes))
	for _, m := range p.Memory {
		kind := "memory"
		if m.PageSize > 0 {
			kind = printable.Bytes(m.PageSize) + " pages"
		}
		line(kind, fmt.Sprintf("%s on node %d", printable.Bytes(m.Bytes), m.Node))
	}
	for _, d := range p.Devices {
		value := d.ID
		if !d.Fraction.Whole() {
			value += ", " + d.Fraction.String()
		}
		line(d.Request, value)
	}
	line("why", p.Reason)
	if !f.explain {
		return
	}
	if p.RunnerUp == nil {
		line("runner-up", "none: no other part of the machine has what is asked for")
		return
	}
	line("runner-up", describeAlternative(p.RunnerUp))
	fmt.Fprintf(w, "  %-11s %s\n", "", "not chosen: "+p.RunnerUp.Why)
}

func describeAlternative(a *place.Alternative) string {
	parts := []string{"CPUs " + place.FormatCPUs(a.CPUs)}
	if len(a.NUMANodes) > 0 {
		parts = append(parts, "NUMA node"+plural(len(a.NUMANodes))+" "+place.FormatCPUs(a.NUMANodes))
	}
	return strings.Join(append(parts, a.Devices...), ", ")
}

func plural(n int) string {
	if n == 1 {
		return ""
	}
	return "s"
}

func describePlacement(p *place.Placement) string {
	parts := []string{"CPUs " + place.FormatCPUs(p.CPUs)}
	for _, d := range p.Devices {
		parts = append(parts, d.ID)
	}
	return strings.Join(parts, ", ")
}
