package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"oscine.dev/oscine/internal/inventory"
	"oscine.dev/oscine/internal/place"
	"oscine.dev/oscine/internal/printable"
)

func newHardwareAttributesCommand(env *Env, f *hardwareFlags) *cobra.Command {
	var output *string
	c := &cobra.Command{
		Use:   "attributes [DEVICE]",
		Short: "Show what selectors of manifests can ask of the devices",
		Long: `Show what selectors of manifests can ask of one device, or of each: its driver,
and its attributes and amounts in the way that an expression names them.`,
		Example: "  oscine hardware attributes gpu0\n  oscine hardware attributes --root server.tar.zst -o json",
		Args:    rangeArgs(0, 1, "a device at most"),
		RunE: func(c *cobra.Command, args []string) error {
			m, err := f.machine(c.Context(), env)
			if err != nil {
				return err
			}
			devices := inventory.Machine(m, "").Devices
			if len(args) == 1 {
				all := devices
				devices = slices.DeleteFunc(slices.Clone(all), func(d place.Device) bool { return d.ID != args[0] })
				if len(devices) == 0 {
					return fmt.Errorf("placement knows no device %q here: it has %s", args[0], deviceIDs(all))
				}
			}
			return listAttributes(devices).print(env.Out, *output)
		},
	}
	output = addOutput(c)
	return c
}

func deviceIDs(devices []place.Device) string {
	ids := make([]string, len(devices))
	for i, d := range devices {
		ids[i] = d.ID
	}
	if len(ids) == 0 {
		return "none"
	}
	return strings.Join(ids, ", ")
}

// selectable is a device as selectors see it.
type selectable struct {
	Device string            `json:"device"`
	Driver string            `json:"driver"`
	Values map[string]any    `json:"attributes"`
	Amount map[string]string `json:"capacity,omitempty"`
}

func listAttributes(devices []place.Device) listing {
	list := make([]selectable, len(devices))
	for i, d := range devices {
		list[i] = selectable{d.ID, d.Driver, d.Attributes, map[string]string{}}
		for name, amount := range d.Capacity {
			list[i].Amount[name] = printable.Bytes(amount)
		}
	}
	l := listing{value: list, table: func(w io.Writer, _ bool) error { return writeAttributes(w, list) }}
	for _, d := range devices {
		l.names = append(l.names, d.ID)
	}
	return l
}

func writeAttributes(w io.Writer, list []selectable) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	for _, d := range list {
		fmt.Fprintf(t, "%s\tdevice.driver\t%q\n", printable.Text(d.Device), d.Driver)
		for _, name := range slices.Sorted(maps.Keys(d.Values)) {
			value, err := json.Marshal(d.Values[name])
			if err != nil {
				return err
			}
			fmt.Fprintf(t, "%s\t%s\t%s\n", printable.Text(d.Device), expression(d.Driver, "attributes", name), printable.Text(string(value)))
		}
		for _, name := range slices.Sorted(maps.Keys(d.Amount)) {
			fmt.Fprintf(t, "%s\t%s\t%s\n", printable.Text(d.Device), expression(d.Driver, "capacity", name), d.Amount[name])
		}
	}
	return t.Flush()
}

// expression names an attribute as a selector does: one without a domain has that
// of its driver.
func expression(driver, of, name string) string {
	domain, last, ok := strings.Cut(name, "/")
	if !ok {
		domain, last = driver, name
	}
	return printable.Text(fmt.Sprintf("device.%s[%q].%s", of, domain, last))
}
