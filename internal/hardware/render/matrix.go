package render

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"oscine.dev/oscine/internal/hardware"
)

// Matrix writes how near each accelerator and RDMA adapter is to each other
// one, in the words of nvidia-smi topo -m: NV18 for 18 NVLinks, XGMI, or a
// Proximity; behind it the nearest CPUs and NUMA node, and for accelerators
// the nearest adapter. Where there are none it says so.
func Matrix(w io.Writer, m *hardware.Machine) error {
	type end struct {
		name, address string
		node          int
		network       bool
	}
	var ends []end
	for _, a := range m.Accelerators {
		if a.Kind != "switch" {
			ends = append(ends, end{a.ID, a.Address, a.Node, false})
		}
	}
	for _, i := range m.Interfaces {
		if i.RDMA != "" {
			ends = append(ends, end{i.Name, i.Address, i.Node, true})
		}
	}
	if len(ends) == 0 {
		_, err := fmt.Fprintln(w, "This machine has no accelerator and no RDMA adapter.")
		return err
	}
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	for _, e := range ends {
		fmt.Fprintf(t, "\t%s", e.name)
	}
	fmt.Fprint(t, "\tcpus\tnode\tnearest network\n")
	for _, row := range ends {
		fmt.Fprint(t, row.name)
		nearest, best := "", hardware.Across+1
		for _, column := range ends {
			p, err := m.Between(row.name, column.name)
			if err != nil {
				return err
			}
			fmt.Fprintf(t, "\t%s", word(p))
			if column.network && !row.network && p.Proximity < best {
				nearest, best = column.name, p.Proximity
			}
		}
		cpus, node := "", ""
		if d := m.Device(row.address); d != nil {
			cpus = (&treePrinter{m: m}).span(d.LocalCPUs)
		}
		if row.node >= 0 {
			node = fmt.Sprint(row.node)
		}
		fmt.Fprintf(t, "\t%s\t%s\t%s\n", cpus, node, nearest)
	}
	return t.Flush()
}

// word is a path in one word.
func word(p hardware.Path) string {
	switch {
	case p.Proximity == hardware.Same:
		return "X"
	case p.Proximity == hardware.Direct && len(p.Over) == 1:
		count, kind, _ := strings.Cut(p.Over[0], " × ")
		if strings.HasPrefix(kind, "nvlink") {
			return "NV" + count
		}
		return strings.ToUpper(kind)
	}
	return p.Proximity.String()
}
