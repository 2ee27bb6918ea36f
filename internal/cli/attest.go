package cli

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	pb "oscine.dev/oscine/internal/api/oscinepb"
	"oscine.dev/oscine/internal/attest"
	"oscine.dev/oscine/internal/client"
	"oscine.dev/oscine/internal/image"
	"oscine.dev/oscine/internal/printable"
	"oscine.dev/oscine/internal/uki"
	"oscine.dev/oscine/internal/update/repository"
)

// attestation are the flags of oscine attest.
type attestation struct {
	image, releases, key, dir string
	ekCA                      string
	makers                    *attest.Makers // of ekCA; nil for none
	registers                 []string
	newKey                    bool
	renewal                   nodeRenewal
}

// attested is what oscine attest reports.
type attested struct {
	Node      string             `json:"node"`
	Version   string             `json:"version"` // that the node says it runs
	Key       string             `json:"key"`     // fingerprint
	Nonce     string             `json:"nonce"`
	Resets    uint32             `json:"resets"` // how often the machine was switched on or reset
	Trusted   bool               `json:"trusted"`
	Registers []attestedRegister `json:"registers"`
	// Endorsement is the TPM's endorsement certificate, where it was asked for and
	// there is one.
	Endorsement      *attestedEndorsement `json:"endorsement,omitempty"`
	askedEndorsement bool
	// Renewed is the node's certificate with --renew, where it was renewed.
	Renewed *renewedCertificate `json:"renewed,omitempty"`
}

// attestedRegister is one register of the TPM.
type attestedRegister struct {
	Index    int    `json:"index"`
	Value    string `json:"value"`
	Expected string `json:"expected,omitempty"`
	Matches  *bool  `json:"matches,omitempty"` // where a value is expected
}

func newAttestCommand(env *Env) *cobra.Command {
	var a attestation
	var output *string
	c := &cobra.Command{
		Use: "attest [NODE]", Short: "Have a node's TPM prove what it has booted",
		Args: cobra.MaximumNArgs(1), ValidArgsFunction: completeContext(env),
		Long: `Have the TPM of a node, by default that of the current context, sign its platform
configuration registers (PCRs) with a random nonce, check the signature, and compare the
registers with what is expected: with --image or --releases that the kernel image is
that of the release (PCR 11), and that nothing was added to it (PCR 12 and 13); with
--pcr any other value.

The first time, the fingerprint of the TPM's key is kept in the context, and from then
on no other key counts. Compare it at the node where that matters, or give it with
--key. PCR 7 is kept the first time that the node has booted what is expected: under
Secure Boot with your own keys it differs where another system was started. After a
change of these keys, take the new value with --pcr 7=HEX. See docs/trust.md.

With --ek-ca the TPM's maker must be one of those in the file: its endorsement
certificate is verified, and the TPM proves that the key which signs is its own.

With --renew a node that runs what is expected gets a certificate for another key of
its own, which its TPM's signature covers, from the authority on this computer. The
node uses it at once; connections that are open stay. A certificate that has expired is
renewed, too. With --every the command goes on until it is interrupted; it reports what
fails and tries again.

The exit status is not 0 where the node cannot prove it, or runs something else.`,
		Example: "  oscine attest edge1 --image out/oscine.img\n  oscine attest edge1 --releases releases -o json\n  oscine attest edge1 --pcr 7=65ca… --write proof\n  oscine attest edge1 --releases releases --renew --every 8h",
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 1 {
				env.Context = args[0]
			}
			if err := a.renewal.check(c); err != nil {
				return err
			}
			var err error
			if a.makers, err = readMakers(env, a.ekCA); err != nil {
				return err
			}
			if a.renewal.every > 0 {
				return a.keepRenewing(c.Context(), env)
			}
			report, err := a.run(c.Context(), env)
			if report == nil {
				return err
			}
			printed := listing{report, []string{report.Node}, func(w io.Writer, _ bool) error { return report.print(w) }}.print(env.Out, *output)
			return errors.Join(err, printed)
		},
	}
	f := c.Flags()
	f.StringVar(&a.image, "image", "", "disk image of the release that the node must run")
	f.StringVar(&a.releases, "releases", "", "release folder on this machine: the node must run the release that it says it runs")
	f.StringArrayVar(&a.registers, "pcr", nil, "value that a register must have, as NUMBER=HEX; may be repeated")
	f.StringVar(&a.key, "key", "", "fingerprint of the TPM's key (default the one that the context knows)")
	f.BoolVar(&a.newKey, "new-key", false, "take another key than the one that the context knows: the machine has another TPM")
	f.StringVar(&a.dir, "write", "", "write the evidence into this folder, for tpm2_checkquote of tpm2-tools")
	f.StringVar(&a.ekCA, "ek-ca", "", "PEM file with the authorities of the TPM's maker, roots and intermediate ones: the TPM must be one of theirs")
	a.renewal.addFlags(c)
	c.MarkFlagsMutuallyExclusive("image", "releases")
	c.MarkFlagsMutuallyExclusive("key", "new-key")
	output = addReportOutput(c)
	return c
}

// run asks the node and judges what it answers. After a failed comparison it
// returns both, report and error.
func (a *attestation) run(ctx context.Context, env *Env) (*attested, error) {
	expected, err := a.given()
	if err != nil {
		return nil, usageError{err}
	}
	name, chosen, err := env.context()
	if err != nil {
		return nil, err
	}
	asks, err := a.reach(env)
	if err != nil {
		return nil, err
	}
	info, err := asks.node.Node.Info(ctx, connect.NewRequest(&pb.InfoRequest{}))
	if err != nil {
		return nil, err
	}
	if err := a.addRelease(expected, info.Msg); err != nil {
		return nil, err
	}
	nonce := make([]byte, 32)
	rand.Read(nonce)
	e, err := asks.quote(ctx, nonce)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	nonce = asks.qualifying(nonce)
	statement, err := e.Verify(nonce)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if err := a.checkExpired(name, chosen, asks); err != nil {
		return nil, err
	}
	report := &attested{Node: name, Version: info.Msg.Version, Key: statement.Fingerprint(), Nonce: hex.EncodeToString(nonce), Resets: statement.Resets}
	if err := a.checkEndorsement(ctx, env, report.Key == chosen.AttestationKey, asks.node, e, report); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if err := a.checkKey(env, name, chosen, statement.Fingerprint()); err != nil {
		return nil, err
	}
	if a.dir != "" {
		command, err := attest.WriteFiles(a.dir, e, statement, nonce)
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(env.Err, "check it with: cd %s && %s\n", a.dir, strings.Join(command, " "))
	}
	if err := a.compare(env, chosen, report, statement, expected); err != nil {
		return report, err
	}
	if a.renewal.on {
		report.Renewed, err = asks.renew(ctx)
	}
	return report, err
}

// compare adds the registers to the report, and returns an error where they are not what
// is expected or what the context knows.
func (a *attestation) compare(env *Env, ctx *client.Context, report *attested, statement *attest.Statement, expected map[int]string) error {
	asked := len(expected) > 0
	known, pcr7 := knownPCR7(ctx, report.Key), hex.EncodeToString(statement.PCRs[secureBootPCR])
	byContext := known != "" && expected[secureBootPCR] == ""
	if byContext {
		expected[secureBootPCR] = known
	}
	for i, pcr := range statement.PCRs {
		r := attestedRegister{Index: i, Value: hex.EncodeToString(pcr), Expected: expected[i]}
		if r.Expected != "" {
			same := r.Value == r.Expected
			r.Matches = &same
		}
		report.Registers = append(report.Registers, r)
	}
	if err := statement.Compare(expected); err != nil {
		err = fmt.Errorf("%s: %w", report.Node, err)
		if a.renewal.on {
			err = fmt.Errorf("%w: its certificate was not renewed", err)
		}
		if byContext && pcr7 != known {
			err = explainPCR7(err, pcr7)
		}
		return err
	}
	if !asked {
		fmt.Fprintln(env.Err, "what the node has booted was not compared: give --image, --releases or --pcr")
		return nil
	}
	report.Trusted = true
	return keepPCR7(env, report.Node, known, pcr7)
}

// given are the values of --pcr.
func (a *attestation) given() (map[int]string, error) {
	expected := map[int]string{}
	for _, text := range a.registers {
		number, value, _ := strings.Cut(text, "=")
		i, err := strconv.Atoi(number)
		raw, err2 := hex.DecodeString(value)
		if err != nil || err2 != nil || i < 0 || i >= attest.Registers || len(raw) != 32 {
			return nil, fmt.Errorf("--pcr %q: use NUMBER=HEX with a register below %d and the 64 digits of a SHA-256", text, attest.Registers)
		}
		expected[i] = strings.ToLower(value)
	}
	return expected, nil
}

// addRelease adds what a release makes of the registers; values that were given
// stay.
func (a *attestation) addRelease(expected map[int]string, info *pb.InfoResponse) error {
	add := func(i int, value string) {
		if expected[i] == "" {
			expected[i] = value
		}
	}
	switch {
	case a.image != "":
		m, err := image.Open(a.image)
		if err != nil {
			return err
		}
		defer m.Close()
		name, kernel, err := m.KernelImage()
		if err != nil {
			return err
		}
		pcr, err := uki.PCR11(kernel)
		if err != nil {
			return fmt.Errorf("%s: %s: %w", m.Path, name, err)
		}
		add(11, hex.EncodeToString(pcr[:]))
	case a.releases != "":
		all, err := repository.Open(a.releases, nil, repository.Options{}).List()
		if err != nil {
			return err
		}
		found := ""
		for _, m := range all {
			if m.Version == info.Version && m.Arch == info.Architecture && m.Kernel == info.Kernel {
				found = m.PCR11
			}
		}
		if found == "" {
			return fmt.Errorf("%s: no release %s for %s with kernel %s that says what PCR 11 is: name its disk image with --image",
				a.releases, printable.Text(info.Version), printable.Text(info.Architecture), printable.Text(info.Kernel))
		}
		add(11, found)
	default:
		return nil
	}
	// The boot loader and the stub measure what is added to a kernel image: another
	// command line, credentials, add-ons (12), extensions of the root (13).
	nothing := strings.Repeat("00", 32)
	add(12, nothing)
	add(13, nothing)
	return nil
}

// checkKey refuses another key than the known one, and keeps the first.
func (a *attestation) checkKey(env *Env, name string, ctx *client.Context, fingerprint string) error {
	known := ctx.AttestationKey
	if a.key != "" {
		known = strings.ToLower(a.key)
	}
	if known != "" && known != fingerprint && !a.newKey {
		return fmt.Errorf("%s: the TPM's key is %s, want %s: it is another machine, or it has another TPM; "+
			"if that is so, take the new key with --new-key", name, fingerprint, known)
	}
	if ctx.AttestationKey == fingerprint {
		return nil
	}
	err := env.editConfig(func(config *client.Config) error {
		_, ctx, err := config.Context(name)
		if err != nil {
			return err
		}
		ctx.AttestationKey, ctx.AttestationPCR7 = fingerprint, "" // another machine's
		return nil
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(env.Err, "the TPM's key %s is new, and known from now on\n", fingerprint)
	return nil
}

func (r *attested) print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintf(w, "Node\t%s\nOscine\t%s\nTPM key\t%s\n", r.Node, printable.Text(r.Version), r.Key)
	if r.askedEndorsement {
		fmt.Fprintf(w, "TPM made by\t%s\n", r.Endorsement)
	}
	fmt.Fprintln(w)
	if err := w.Flush(); err != nil {
		return err
	}
	w = tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "PCR\tVALUE\tRESULT")
	for _, p := range r.Registers {
		result := "-"
		if p.Matches != nil {
			result = map[bool]string{true: "as expected", false: "expected " + p.Expected}[*p.Matches]
		}
		fmt.Fprintf(w, "%d\t%s\t%s\n", p.Index, p.Value, result)
	}
	if r.Renewed != nil {
		fmt.Fprintf(w, "\nCertificate renewed until %s, serial %s\n", r.Renewed.NotAfter.Format(time.RFC3339), r.Renewed.Serial)
	}
	return w.Flush()
}
