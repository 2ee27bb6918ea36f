package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"oscine.dev/oscine/internal/bounded"
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
	machine         string
	output          *string
	explain, defrag bool
	displace        bool
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
of the current context, else this machine. A node decides itself, exactly as
oscine apply would have it; that takes an operator's certificate. Objects are
placed in order; if one does not fit, every constraint that fails is named, with
what would satisfy it, and the exit status is 1.`,
		Example: `  oscine place -f train.yaml --machine server.tar.zst --explain`,
		Args:    exactArgs(0, "no argument"),
		RunE:    func(c *cobra.Command, _ []string) error { return f.run(c.Context(), env) },
	}
	c.Flags().StringSliceVarP(&f.files, "filename", "f", nil, "manifest files; - is standard input")
	c.Flags().StringVar(&f.machine, "machine", "", "the machine to place on")
	f.output = addOutput(c)
	_ = c.RegisterFlagCompletionFunc("machine", func(c *cobra.Command, args []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
		names, _ := completeContext(env)(c, args, begun)
		return names, cobra.ShellCompDirectiveDefault // files too
	})
	c.Flags().BoolVar(&f.explain, "explain", false, "tell the runner-up too, and why it was not chosen")
	c.Flags().BoolVar(&f.displace, "displace", false, displaceHelp)
	c.Flags().BoolVar(&f.defrag, "defragment", false, "where work does not fit, show which running work to move so that it would")
	return c
}

// placed is what became of one object.
type placed struct {
	Object    string             `json:"object"`
	Placement *place.Placement   `json:"placement,omitempty"`
	Refusal   *place.Unsatisfied `json:"refusal,omitempty"`
	Moves     []place.Move       `json:"moves,omitempty"`
	Displaces []displaced        `json:"displaces,omitempty"` // on a node
	Waits     string             `json:"waits,omitempty"`     // why a node places it later, where no part of it is lacking
}

// displaced is an object of a node that loses its part of the machine.
type displaced struct {
	Object string `json:"object"`
	Why    string `json:"why"`
}

func (f *placeFlags) run(ctx context.Context, env *Env) error {
	if len(f.files) == 0 {
		return usageError{errors.New("-f is required: the manifest of what to place; see oscine place --help")}
	}
	var texts []string
	var objects []object.Object
	for _, file := range f.files {
		text, read, err := readManifest(env, file)
		if err != nil {
			return err
		}
		texts, objects = append(texts, text), append(objects, read...)
	}
	for _, obj := range objects {
		if _, ok := obj.(object.Placeable); !ok {
			return fmt.Errorf("%s: a %s needs no place on a machine", obj.Key(), obj.Key().Kind)
		}
	}
	results, err := f.results(ctx, env, strings.Join(texts, "\n---\n"), objects)
	if err != nil {
		return err
	}
	refused := false
	var names []string
	for _, r := range results {
		refused, names = refused || r.Refusal != nil || r.Waits != "", append(names, r.Object)
	}
	if err := (listing{results, names, func(w io.Writer, _ bool) error { return f.writeAll(w, results) }}).print(env.Out, *f.output); err != nil {
		return err
	}
	if refused {
		return exitError(1)
	}
	return nil
}

func (f *placeFlags) writeAll(w io.Writer, results []placed) error {
	var text bytes.Buffer
	for i, r := range results {
		if i > 0 {
			fmt.Fprintln(&text)
		}
		f.write(&text, r)
	}
	_, err := w.Write(text.Bytes())
	return err
}

func readManifest(env *Env, file string) (text string, objects []object.Object, err error) {
	raw, err := readFileOrStdin(env, file)
	if err != nil {
		return "", nil, err
	}
	objects, err = env.Kinds.Parse(bytes.NewReader(raw))
	if err != nil {
		return "", nil, fmt.Errorf("%s:\n%w", file, err)
	}
	return string(raw), objects, nil
}

// placeAll places the objects in order, gangs as a whole.
func (f *placeFlags) placeAll(ctx context.Context, s *place.State, objects []object.Object) ([]placed, error) {
	var results []placed
	var all []object.Object
	for _, obj := range objects {
		all = append(all, object.Instances(obj)...)
	}
	objects = all
	done := map[string]bool{}
	for i, obj := range objects {
		placeable := obj.(object.Placeable) // run has refused others
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

// results places the objects on the machine that --machine names.
func (f *placeFlags) results(ctx context.Context, env *Env, manifest string, objects []object.Object) ([]placed, error) {
	name, onNode, err := f.node(env)
	if err != nil {
		return nil, err
	}
	if onNode {
		return f.onNode(ctx, env, name, manifest, objects)
	}
	if f.displace {
		return nil, usageError{errors.New("--displace is for a node: nothing runs on the machine of a file")}
	}
	state, err := f.state(ctx)
	if err != nil {
		return nil, err
	}
	return f.placeAll(ctx, state, objects)
}

// node is the context whose node decides, "" for the current one. It reports
// false where the machine is that of a file, or this one.
func (f *placeFlags) node(env *Env) (name string, onNode bool, err error) {
	if f.machine == "" {
		_, err := env.Client()
		if env.Context == "" && errors.Is(err, client.ErrNoContext) {
			return "", false, nil
		}
		return env.Context, true, err
	}
	_, err = os.Stat(f.machine)
	switch {
	case err == nil && !env.knows(f.machine): // generate makes a folder of a context's name
		return "", false, nil
	case err != nil && (!errors.Is(err, fs.ErrNotExist) || strings.ContainsAny(f.machine, "/.")):
		return "", false, fmt.Errorf("--machine %w", unreadable(f.machine, err))
	}
	return f.machine, true, nil
}

// state is the machine of a file, or this one, with nothing on it.
func (f *placeFlags) state(ctx context.Context) (*place.State, error) {
	if f.machine == "" {
		m, err := localMachine(ctx, "/")
		if err != nil {
			return nil, err
		}
		return inventory.State(m, m.System.Product)
	}
	m, err := readMachine(f.machine)
	if err != nil {
		return nil, err
	}
	return inventory.State(m, filepath.Base(f.machine))
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
		data, err := bounded.ReadAll(r, maxMachineFile)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", path, err)
		}
		return hardware.Decode(data)
	}
	if err := rootIsThere("--machine", path); err != nil {
		return nil, err
	}
	return hardware.Discover(path)
}

// write prints one result.
func (f *placeFlags) write(w io.Writer, r placed) {
	if r.Waits != "" {
		fmt.Fprintf(w, "%s has no place now: %s\n", r.Object, printable.Text(r.Waits))
		return
	}
	if r.Placement == nil && r.Refusal == nil {
		fmt.Fprintf(w, "%s has finished: it takes no part of the machine\n", r.Object)
		return
	}
	if r.Refusal != nil {
		fmt.Fprintf(w, "%s does not fit:\n", r.Object)
		for _, failure := range r.Refusal.Failures {
			fmt.Fprintf(w, "  %s: %s\n      → %s\n", printable.Text(failure.Constraint), printable.Text(failure.Problem), printable.Text(failure.Remedy))
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
	for _, d := range r.Displaces {
		line("displaces", fmt.Sprintf("%s: %s", d.Object, printable.Text(d.Why)))
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
