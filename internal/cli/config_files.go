package cli

import (
	"fmt"
	"net"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"oscine.dev/oscine/internal/durable"
)

func newConfigFilesCommand(env *Env) *cobra.Command {
	return &cobra.Command{
		Use: "files DIR", Short: "Write the context's certificates as files, for curl and other programs", Args: exactArgs(1, "DIR"),
		Long: `Write the authority, the certificate and the key of the chosen context to ca.crt,
client.crt and client.key in a folder, and print a curl command that uses them.
client.key is as secret as the context itself: remove the folder when you are done.`,
		Example: "  oscine config files edge1-files",
		RunE: func(_ *cobra.Command, args []string) error {
			_, ctx, err := env.context()
			if err != nil {
				return err
			}
			host, port, err := net.SplitHostPort(ctx.Address)
			if err != nil {
				return fmt.Errorf("the context's address %q: %w", ctx.Address, err)
			}
			dir := args[0]
			if err := os.MkdirAll(dir, 0o700); err != nil {
				return err
			}
			for name, text := range map[string]string{"ca.crt": ctx.CA, "client.crt": ctx.Certificate, "client.key": ctx.Key} {
				if err := durable.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
					return err
				}
			}
			if ctx.ServerName == "" {
				ctx.ServerName = host
			}
			fmt.Fprintf(env.Out, `curl -sS --cacert %[1]s/ca.crt --cert %[1]s/client.crt --key %[1]s/client.key \
  --connect-to %[2]s:%[3]s:%[4]s \
  -H 'Content-Type: application/json' -d '{}' https://%[2]s:%[3]s/oscine.v1.Node/Info
`, dir, ctx.ServerName, port, net.JoinHostPort(host, port))
			return nil
		},
	}
}
