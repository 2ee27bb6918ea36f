package cli

import (
	"fmt"
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	pb "oscine.dev/oscine/internal/api/oscinepb"
	"oscine.dev/oscine/internal/pki"
)

func newConfigRevokeCommand(env *Env) *cobra.Command {
	var authority string
	var own bool
	c := &cobra.Command{
		Use:   "revoke SERIAL|NAME…",
		Short: "Have the node refuse clients' certificates from now on",
		Long: `Have the node of the chosen context refuse certificates before they expire, and
end the calls that are under way with them. Each node has its own list.

SERIAL is a certificate's serial number (oscine config certificates). NAME stands
for all certificates that the authority has signed for that name, by the list
issued.txt beside it.`,
		Example: "  oscine config revoke rita\n  oscine config revoke 1f0c5e6a7b8d9e0f1a2b3c4d5e6f7081",
		Args:    rangeArgs(1, 1000, "SERIAL or NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			certificates, err := chosenCertificates(env, authority, args)
			if err != nil {
				return err
			}
			node, err := env.Client()
			if err != nil {
				return err
			}
			if _, err := node.Access.Revoke(c.Context(), connect.NewRequest(&pb.RevokeRequest{Certificates: certificates, Own: own})); err != nil {
				return err
			}
			for _, r := range certificates {
				fmt.Fprintln(env.Out, strings.TrimSpace(r.Serial+" "+r.Name), "revoked")
			}
			return nil
		},
	}
	c.Flags().StringVar(&authority, "authority", "", "folder with "+issuedFile+" (default the one that the context names, else ./CONTEXT)")
	c.Flags().BoolVar(&own, "yes-revoke-my-own", false, "also the certificate of this very call, which locks you out")
	return c
}

// chosenCertificates finds the certificates that the arguments name.
func chosenCertificates(env *Env, dir string, args []string) ([]*pb.Revocation, error) {
	var list []*pb.Revocation
	for _, arg := range args {
		if serial, err := pki.ParseSerial(arg); err == nil {
			list = append(list, &pb.Revocation{Serial: serial})
			continue
		}
		name, ctx, err := env.context()
		if err != nil {
			return nil, err
		}
		dir = authorityDir(dir, name, ctx)
		serials, err := issuedTo(dir, arg)
		if err != nil {
			return nil, fmt.Errorf("whose certificate %q is: %w: give its serial number, or say where the authority lies with --authority DIR", arg, err)
		}
		if len(serials) == 0 {
			return nil, missing{fmt.Errorf("%s lists no valid certificate of %q: give its serial number", issuedFile, arg)}
		}
		for _, serial := range serials {
			list = append(list, &pb.Revocation{Serial: serial, Name: arg})
		}
	}
	return list, nil
}

func newConfigRestoreCommand(env *Env) *cobra.Command {
	return &cobra.Command{
		Use: "restore SERIAL…", Short: "Have the node accept revoked certificates again", Args: rangeArgs(1, 1000, "SERIAL"),
		RunE: func(c *cobra.Command, args []string) error {
			node, err := env.Client()
			if err != nil {
				return err
			}
			if _, err := node.Access.Restore(c.Context(), connect.NewRequest(&pb.RestoreRequest{Serials: args})); err != nil {
				return err
			}
			fmt.Fprintln(env.Out, strings.Join(args, " "), "restored")
			return nil
		},
	}
}
