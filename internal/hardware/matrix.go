package hardware

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// WriteMatrix writes how near each accelerator and RDMA adapter is to each
// other one, in the words of nvidia-smi topo -m: NV18 for 18 NVLinks, XGMI, or
// a Proximity; behind it the nearest CPUs and NUMA node, and for accelerators
// the nearest adapter.
func WriteMatrix(w io.Writer, m *Machine) error {
	var names, nets []string
	for _, a := range m.Accelerators {
		if a.Kind != "switch" {
			names = append(names, a.ID)
		}
	}
	for _, i := range m.Interfaces {
		if i.RDMA != "" {
			nets = append(nets, i.Name)
		}
	}
	all := append(names, nets...)
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintf(t, "\t%s\tcpus\tnode\tnearest network\n", strings.Join(all, "\t"))
	for _, row := range all {
		fmt.Fprint(t, row)
		nearest, best := "", Across+1
		for _, column := range all {
			p, err := m.Between(row, column)
			if err != nil {
				return err
			}
			fmt.Fprintf(t, "\t%s", p.short())
			if p.Proximity < best && p.Proximity != Same && slices.Contains(nets, column) && !slices.Contains(nets, row) {
				nearest, best = column, p.Proximity
			}
		}
		end, err := m.endpoint(row)
		if err != nil {
			return err
		}
		cpus := ""
		if end.pci != nil {
			cpus = (&treePrinter{m: m}).span(end.pci.LocalCPUs)
		}
		node := ""
		if end.node >= 0 {
			node = fmt.Sprint(end.node)
		}
		fmt.Fprintf(t, "\t%s\t%s\t%s\n", cpus, node, nearest)
	}
	return t.Flush()
}

// short is a path in one word.
func (p Path) short() string {
	switch {
	case p.Proximity == Same:
		return "X"
	case p.Proximity == Direct && len(p.Over) == 1:
		count, kind, _ := strings.Cut(p.Over[0], " × ")
		if strings.HasPrefix(kind, "nvlink") {
			return "NV" + count
		}
		return strings.ToUpper(kind)
	}
	return p.Proximity.String()
}
