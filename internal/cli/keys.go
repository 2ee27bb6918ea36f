package cli

import (
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"path/filepath"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"oscine.dev/oscine/internal/secureboot"
)

func newKeysCommand(env *Env) *cobra.Command {
	c := &cobra.Command{
		Use: "keys", Short: "Make keys that machines trust",
		Long: `Make keys that machines trust before any node runs. Those that sign releases are
made by oscine release keys, those of clients and nodes by oscine config.`,
	}
	c.AddCommand(newKeysSecureBootCommand(env))
	return c
}

func newKeysSecureBootCommand(env *Env) *cobra.Command {
	var owner string
	var trusted []string
	c := &cobra.Command{
		Use: "secureboot FOLDER", Short: "Make the keys of Secure Boot", Args: exactArgs(1, "FOLDER"),
		Long: `Make the keys by which firmware tells what it may start: the platform key (PK), which
may change KEK; the key exchange key (KEK), which may change db; and db, whose key
signs boot loader and kernel images. Of each there is NAME.pem, the private key with
its certificate, NAME.crt, the certificate, and the files that firmware takes:
NAME.esl and, signed, NAME.auth.

oscine image build --secureboot FOLDER needs db.pem and the .auth files. Keep PK.pem
and KEK.pem offline: who has them can make the machines trust another key.

Cards with firmware of their own, such as most graphics cards, need the certificate
that signed it in db: give it with --trust, or such a card stays dark while the
firmware starts. See docs/trust.md.`,
		Example: "  oscine keys secureboot ~/secureboot --owner Example\n  oscine image build --secureboot ~/secureboot -o out/oscine.img",
		RunE: func(_ *cobra.Command, args []string) error {
			var certificates []*x509.Certificate
			for _, file := range trusted {
				cert, err := secureboot.ReadCertificate(file)
				if err != nil {
					return usageError{fmt.Errorf("--trust %w", err)}
				}
				certificates = append(certificates, cert)
			}
			made, err := secureboot.Generate(args[0], owner, certificates)
			if err != nil {
				return err
			}
			w := tabwriter.NewWriter(env.Out, 0, 8, 2, ' ', 0)
			fmt.Fprintln(w, "NAME\tFILE\tSHA-256 OF THE CERTIFICATE")
			for _, name := range secureboot.Variables() {
				fmt.Fprintf(w, "%s\t%s\t%x\n", name, filepath.Join(args[0], name+".pem"), sha256.Sum256(made[name].Raw))
			}
			return w.Flush()
		},
	}
	c.Flags().StringVar(&owner, "owner", "Oscine", "name that the certificates begin with")
	c.Flags().StringArrayVar(&trusted, "trust", nil, "file of a certificate that db has too, PEM or DER; may be repeated")
	return c
}
