package cli

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	pb "oscine.dev/oscine/internal/api/oscinepb"

	"oscine.dev/oscine/internal/printable"
)

func newInfoCommand(env *Env) *cobra.Command {
	var output *string
	c := &cobra.Command{
		Use: "info", Short: "Show what a node is and what it cannot hold", Args: exactArgs(0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			node, err := env.Client()
			if err != nil {
				return err
			}
			resp, err := node.Node.Info(c.Context(), connect.NewRequest(&pb.InfoRequest{}))
			if err != nil {
				return err
			}
			return listing{resp.Msg, []string{resp.Msg.Name}, func(w io.Writer, _ bool) error { return printInfo(w, resp.Msg) }}.print(env.Out, *output)
		},
	}
	output = addOutput(c)
	return c
}

func printInfo(out io.Writer, m *pb.InfoResponse) error {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	mode := m.Mode
	if m.Slot != "" {
		mode += ", " + m.Slot
	}
	fmt.Fprintf(w, "Node\t%s\nOscine\t%s (%s)\nKernel\t%s %s\n", m.Name, m.Version, mode, m.Kernel, m.Architecture)
	for _, s := range m.Slots {
		fmt.Fprintf(w, "Slot %s\t%s\n", printable.Text(s.Slot), slotText(s))
	}
	fmt.Fprintf(w, "Up\t%s\n", time.Duration(m.UptimeSeconds*float64(time.Second)).Round(time.Second))
	if m.Mode != "hosted" { // else it counts from the host's boot
		fmt.Fprintf(w, "Ready after\t%.2f s\n", m.ReadySeconds)
	}
	fmt.Fprintf(w, "System memory\t%s\n", printable.Bytes(m.SystemMemoryBytes))
	for _, p := range m.Processes {
		fmt.Fprintf(w, "  %s\t%s\n", p.Name, printable.Bytes(p.Bytes))
	}
	if d := m.Disk; d != nil && d.SizeBytes > 0 {
		fmt.Fprintf(w, "Disk\t%s of %s free", printable.Bytes(d.FreeBytes), printable.Bytes(d.SizeBytes))
		if d.SizeFiles > 0 {
			fmt.Fprintf(w, ", %d of %d files", d.FreeFiles, d.SizeFiles)
		}
		fmt.Fprintln(w)
	}
	if c := m.Certificate; c != nil {
		text := "until " + c.NotAfter.AsTime().Format(time.RFC3339) + ", serial " + c.Serial
		if c.Problem != "" {
			text += ": " + c.Problem
		}
		fmt.Fprintf(w, "Certificate\t%s\n", printable.Text(text))
	}
	if e := m.Encryption; e != nil {
		recovery := "with a recovery key"
		if !e.RecoveryKey {
			recovery = "without a recovery key: make one with oscine recovery-key create"
		}
		fmt.Fprintf(w, "Encryption\t%s, %s\n", printable.Text(e.Method), recovery)
	}
	for _, l := range m.Links {
		fmt.Fprintf(w, "Network %s\t%s\n", printable.Text(l.Name), linkText(l))
	}
	for _, g := range m.MissingGuarantees {
		fmt.Fprintf(w, "Not guaranteed\t%s\n", g)
	}
	return w.Flush()
}

// linkText says what addresses an interface has and by what, or why it has none.
func linkText(l *pb.NetworkLink) string {
	if l.Error != "" {
		return printable.Text(l.Error)
	}
	if len(l.Addresses) == 0 {
		return "no address (" + printable.Text(l.Source) + ")"
	}
	text := strings.Join(l.Addresses, ", ") + " (" + l.Source + ")"
	if l.Gateway != "" {
		text += ", gateway " + l.Gateway
	}
	return printable.Text(text)
}

func newRebootCommand(env *Env) *cobra.Command {
	return newPowerCommand(env, "reboot", "Stop everything cleanly and start the node again", "the node stops and starts again; oscine info answers when it is back", false)
}

func newShutdownCommand(env *Env) *cobra.Command {
	return newPowerCommand(env, "shutdown", "Stop everything cleanly and switch the node off", "the node stops and switches itself off", true)
}

func newPowerCommand(env *Env, use, short, done string, off bool) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Args: exactArgs(0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			node, err := env.Client()
			if err != nil {
				return err
			}
			if _, err = node.Node.Reboot(c.Context(), connect.NewRequest(&pb.RebootRequest{PowerOff: off})); err != nil {
				return err
			}
			fmt.Fprintln(env.Out, done)
			return nil
		},
	}
}
