package cli

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	pb "oscine.dev/oscine/internal/api/oscinepb"
	"oscine.dev/oscine/internal/durable"
	"oscine.dev/oscine/internal/pki"
	"oscine.dev/oscine/internal/printable"
)

// issuedFile lists the clients' certificates that an authority has signed, a
// line each: serial number, name, role, end. It lies beside the authority.
const issuedFile = "issued.txt"

func noteIssued(dir string, cert *x509.Certificate) error {
	path := filepath.Join(dir, issuedFile)
	raw, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read the list of issued certificates: %w", err)
	}
	name := strings.Map(func(r rune) rune {
		if r == '\t' || r == '\n' || r == '\r' {
			return ' '
		}
		return r
	}, cert.Subject.CommonName)
	line := fmt.Sprintf("%s\t%s\t%s\t%s\n", pki.Serial(cert), name, pki.RoleOf(cert), cert.NotAfter.Format(time.DateOnly))
	if err := durable.WriteFile(path, append(raw, line...), 0o600); err != nil {
		return fmt.Errorf("write the list of issued certificates: %w", err)
	}
	return nil
}

// clientCertificate is a client's certificate as config certificates lists it.
type clientCertificate struct {
	Serial  string `json:"serial"`
	Name    string `json:"name"`
	Role    string `json:"role,omitempty"`    // empty where the authority's list lacks it
	Expires string `json:"expires,omitempty"` // date
	State   string `json:"state"`             // valid, expired, revoked
	By      string `json:"revokedBy,omitempty"`
	Revoked string `json:"revoked,omitempty"` // when, RFC 3339
	Asked   string `json:"asked,omitempty"`   // when its owner asked for a renewal, RFC 3339
}

// issued reads the list beside the authority, the oldest first.
func issued(dir string) ([]clientCertificate, error) {
	raw, err := os.ReadFile(filepath.Join(dir, issuedFile))
	if err != nil {
		return []clientCertificate{}, err
	}
	today := time.Now().Format(time.DateOnly)
	all := []clientCertificate{}
	for line := range strings.Lines(string(raw)) {
		fields := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if len(fields) != 4 {
			continue
		}
		state := "valid"
		if fields[3] < today {
			state = "expired"
		}
		all = append(all, clientCertificate{Serial: fields[0], Name: fields[1], Role: fields[2], Expires: fields[3], State: state})
	}
	return all, nil
}

// issuedTo returns the serial numbers of a client's certificates, of those that
// have not expired.
func issuedTo(dir, name string) ([]string, error) {
	all, err := issued(dir)
	var serials []string
	for _, c := range all {
		if c.Name == name && c.State == "valid" {
			serials = append(serials, c.Serial)
		}
	}
	return serials, err
}

func newConfigCertificatesCommand(env *Env) *cobra.Command {
	var output *string
	var authority string
	c := &cobra.Command{
		Use: "certificates", Short: "List clients' certificates: valid, expired and revoked", Args: exactArgs(0, ""),
		Long: `List the clients' certificates that the authority has signed, by the list
issued.txt beside it, which of them the node of the chosen context refuses (oscine
config revoke), and whose owners ask for a renewal (oscine config approve). Without
that list only the last two are known.`,
		RunE: func(c *cobra.Command, _ []string) error {
			name, ctx, err := env.context()
			if err != nil {
				return err
			}
			dir := authorityDir(authority, name, ctx)
			all, err := issued(dir)
			if authority == "" && errors.Is(err, fs.ErrNotExist) {
				fmt.Fprintf(env.Err, "%s is not in %s: only revoked certificates and renewals are listed; say where the authority lies with --authority DIR\n", issuedFile, dir)
			} else if err != nil {
				return fmt.Errorf("read the list of issued certificates: %w", err)
			}
			node, err := env.Client()
			if err != nil {
				return err
			}
			resp, err := node.Access.ListRevoked(c.Context(), connect.NewRequest(&pb.ListRevokedRequest{}))
			if err != nil {
				return err
			}
			all = withRevoked(all, resp.Msg.Certificates)
			asked, err := node.Access.ListRenewals(c.Context(), connect.NewRequest(&pb.ListRenewalsRequest{}))
			if err != nil {
				return err
			}
			all = withRenewals(all, asked.Msg.Renewals)
			serials := make([]string, len(all))
			for i, c := range all {
				serials[i] = c.Serial
			}
			return listing{all, serials, func(w io.Writer, _ bool) error { return printCertificates(w, all) }}.print(env.Out, *output)
		},
	}
	c.Flags().StringVar(&authority, "authority", "", "folder with "+issuedFile+" (default the one that the context names, else ./CONTEXT)")
	output = addOutput(c)
	return c
}

// withRevoked marks what the node refuses, and adds what the list lacks.
func withRevoked(all []clientCertificate, revoked []*pb.Revocation) []clientCertificate {
	at := map[string]int{}
	for i, c := range all {
		at[c.Serial] = i
	}
	for _, r := range revoked {
		i, known := at[r.Serial]
		if !known {
			i = len(all)
			all = append(all, clientCertificate{Serial: r.Serial, Name: r.Name})
		}
		all[i].State, all[i].By, all[i].Revoked = "revoked", r.By, r.Revoked.AsTime().Format(time.RFC3339)
	}
	return all
}

// withRenewals marks certificates whose owners ask for another, and adds what the
// list lacks.
func withRenewals(all []clientCertificate, renewals []*pb.Renewal) []clientCertificate {
	for _, r := range renewals {
		cert, err := x509.ParseCertificate(r.Certificate)
		if err != nil {
			continue
		}
		serial := pki.Serial(cert)
		i := slices.IndexFunc(all, func(c clientCertificate) bool { return c.Serial == serial })
		if i < 0 {
			i = len(all)
			all = append(all, clientCertificate{Serial: serial, Name: cert.Subject.CommonName, Role: pki.RoleOf(cert).String(), Expires: date(cert), State: "valid"})
		}
		all[i].Asked = r.Asked.AsTime().Format(time.RFC3339)
	}
	return all
}

func printCertificates(out io.Writer, all []clientCertificate) error {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "SERIAL\tNAME\tROLE\tEXPIRES\tSTATE")
	for _, c := range all {
		state := c.State
		if c.Revoked != "" {
			state += " " + c.Revoked + " by " + orDash(printable.Text(c.By))
		}
		if c.Asked != "" {
			state += ", renewal asked " + c.Asked
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", printable.Text(c.Serial), orDash(printable.Text(c.Name)), orDash(printable.Text(c.Role)), orDash(printable.Text(c.Expires)), state)
	}
	return w.Flush()
}
