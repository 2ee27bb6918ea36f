package cli

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"oscine.dev/oscine/internal/pack"
	"oscine.dev/oscine/internal/printable"
	"oscine.dev/oscine/internal/update"
	"oscine.dev/oscine/internal/update/keys"
	"oscine.dev/oscine/internal/update/repository"
)

func newReleaseCommand(env *Env) *cobra.Command {
	c := &cobra.Command{
		Use: "release", Short: "Make, sign, check and serve releases that nodes upgrade to",
		Long: `A release folder holds releases of Oscine, full and as deltas, and the signed
metadata of The Update Framework (TUF). Any web server, registry or USB stick can carry
it: nodes trust the keys, not the place. See docs/releases.md.`,
	}
	c.AddCommand(newReleaseInitCommand(env), newReleaseCreateCommand(env), newReleaseSignCommand(env), newReleaseKeysCommand(env),
		newReleaseListCommand(env), newReleaseVerifyCommand(env), newReleaseServeCommand(env), newReleasePushCommand(env), newReleaseDeltaCommand(env))
	return c
}

// signing are the flags of commands that sign.
type signing struct {
	keys       string
	passphrase string
	expires    []string
}

func (s *signing) add(c *cobra.Command) {
	c.Flags().StringVar(&s.keys, "keys", "", "folder with your keys, outside the release folder")
	c.Flags().StringVar(&s.passphrase, "passphrase-file", "", "file with the passphrase of the keys (default: ask on the terminal when a key is encrypted)")
	c.Flags().StringArrayVar(&s.expires, "expires", nil, "how long signed metadata is valid, as ROLE=DURATION (default root=8760h, targets=4320h, snapshot=720h, timestamp=168h); may be repeated")
	_ = c.MarkFlagRequired("keys") // fails for an unknown flag only
}

// open is a release folder with the keys at hand.
func (s *signing) open(env *Env, dir string) (*repository.Repository, error) {
	return s.openWith(env, dir, nil)
}

// openWith is open with more keys.
func (s *signing) openWith(env *Env, dir string, more []*keys.Key) (*repository.Repository, error) {
	if err := keys.Outside(s.keys, dir); err != nil {
		return nil, usageError{err}
	}
	have, err := keys.Load(s.keys, askPassphrase(env, s.passphrase))
	if err != nil {
		return nil, err
	}
	var o repository.Options
	for _, text := range s.expires {
		role, value, ok := strings.Cut(text, "=")
		d, err := time.ParseDuration(value)
		to := map[string]*time.Duration{"root": &o.Expiry.Root, "targets": &o.Expiry.Targets, "snapshot": &o.Expiry.Snapshot, "timestamp": &o.Expiry.Timestamp}[role]
		if !ok || err != nil || d <= 0 || to == nil {
			return nil, usageError{fmt.Errorf("--expires %q: use ROLE=DURATION with root, targets, snapshot or timestamp, such as timestamp=168h", text)}
		}
		*to = d
	}
	return repository.Open(dir, append(have, more...), o), nil
}

// askPassphrase reads a passphrase from a file, or from the terminal.
func askPassphrase(env *Env, file string) func() ([]byte, error) {
	return func() ([]byte, error) {
		if file != "" {
			text, err := readBounded(env, file, 4096, "so not a passphrase")
			return []byte(strings.TrimRight(string(text), "\r\n")), err
		}
		in, ok := terminalOf(env.In)
		if !ok {
			return nil, fmt.Errorf("%w: give --passphrase-file", keys.ErrPassphrase)
		}
		return askSecret(env, in, "Passphrase of the keys: ")
	}
}

// tellResult says what was published, or what it waits for.
func tellResult(w io.Writer, r *repository.Result) error {
	var roles []string
	for role, version := range r.Versions {
		roles = append(roles, fmt.Sprintf("%s %d", role, version))
	}
	slices.Sort(roles)
	if r.Published {
		_, err := fmt.Fprintf(w, "published: %s\n", strings.Join(roles, ", "))
		return err
	}
	fmt.Fprintf(w, "staged, not published: %s\n", strings.Join(roles, ", "))
	for role, why := range r.Missing {
		fmt.Fprintf(w, "  %s: %s\n", role, why)
	}
	_, err := fmt.Fprintln(w, "run oscine release sign where the missing keys are")
	return err
}

func newReleaseInitCommand(env *Env) *cobra.Command {
	var s signing
	var thresholds []string
	c := &cobra.Command{
		Use: "init FOLDER", Short: "Create a release folder", Args: exactArgs(1, "FOLDER"),
		Long: `Create an empty release folder. Each key is used for the role that its file is
named after: root, targets, snapshot, timestamp, and optionally releases, to which
targets delegates signing releases. For keys kept elsewhere, put the .pub files into
the folder of keys: what lacks signatures is staged until oscine release sign runs there.`,
		Example: "  oscine release keys generate ~/keys\n  oscine release init releases --keys ~/keys",
		RunE: func(c *cobra.Command, args []string) error {
			setup := repository.Setup{Threshold: map[string]int{}}
			for _, text := range thresholds {
				role, value, _ := strings.Cut(text, "=")
				n := 0
				if _, err := fmt.Sscanf(value, "%d", &n); err != nil || n < 1 {
					return usageError{fmt.Errorf("--threshold %q: use ROLE=NUMBER, such as root=2", text)}
				}
				setup.Threshold[role] = n
			}
			r, err := s.open(env, args[0])
			if err != nil {
				return err
			}
			result, err := r.Init(setup)
			if err != nil {
				return err
			}
			return tellResult(env.Out, result)
		},
	}
	s.add(c)
	c.Flags().StringArrayVar(&thresholds, "threshold", nil, "how many keys of a role must sign, as ROLE=NUMBER (default 1); may be repeated")
	return c
}

func newReleaseCreateCommand(env *Env) *cobra.Command {
	var s signing
	var rel repository.Release
	var output *string
	var quiet bool
	c := &cobra.Command{
		Use: "create FOLDER IMAGE", Short: "Add a release, made from a disk image", Args: exactArgs(2, "FOLDER and IMAGE"),
		Long: `Add the release that a disk image holds, as oscine image build makes it: its signed
kernel image and its root. Version, architecture and kernel flavour are read from
the image. Deltas are made from the newest earlier releases for the same machines
and kept where they are smaller. Nodes see all of the release at once, or, after
an error, nothing.

Nodes that upgrade to it install its packs (--pack), which need no admin's signature, and
store its models (--model), which a Model names as release:FILE.`,
		Example: "  oscine image build --version 1.2.0 -o out/oscine.img\n  oscine release create releases out/oscine.img --keys ~/keys --min-version 1.0.0",
		RunE: func(c *cobra.Command, args []string) error {
			r, err := s.open(env, args[0])
			if err != nil {
				return err
			}
			packs, err := readPacks(c.Context(), rel.Packs)
			if err != nil {
				return err
			}
			if rel.Parts, err = repository.OpenImage(args[1]); err != nil {
				return err
			}
			defer rel.Parts.Close()
			if err := checkPacks(packs, rel.Parts.Arch, rel.Parts.Kernel); err != nil {
				return err
			}
			var done func()
			rel.Log, done = workLog(env, quiet)
			created, err := r.Create(c.Context(), rel)
			done()
			if err != nil {
				return err
			}
			return listing{created, nil, func(w io.Writer, _ bool) error {
				if err := printReleases(w, []*update.Manifest{created.Manifest}); err != nil {
					return err
				}
				return tellResult(w, &created.Result)
			}}.print(env.Out, *output)
		},
	}
	s.add(c)
	f := c.Flags()
	f.StringVar(&rel.MinVersion, "min-version", "", "oldest version that can be upgraded directly to this one")
	f.StringVar(&rel.Floor, "floor", "", "oldest version that nodes accept once this one has passed its checks")
	f.StringArrayVar(&rel.Packs, "pack", nil, "pack that nodes install with the release; may be repeated")
	f.StringArrayVar(&rel.Models, "model", nil, "model file that nodes store with the release; may be repeated")
	f.IntVar(&rel.Deltas, "deltas", 3, "number of earlier releases to make deltas from")
	output = addReportOutput(c)
	f.BoolVarP(&quiet, "quiet", "q", false, "no progress lines")
	return c
}

// readPacks reads the manifests of packs, and refuses what is none and two of one name.
func readPacks(ctx context.Context, files []string) (packs []*pack.Info, err error) {
	for _, file := range files {
		p, err := pack.ReadFile(ctx, file)
		if err != nil {
			return nil, err
		}
		for _, other := range packs {
			if other.Name == p.Name {
				return nil, fmt.Errorf("%s and %s are both packs of the name %s: a node keeps one", other.File, file, p.Name)
			}
		}
		packs = append(packs, p)
	}
	return packs, nil
}

// checkPacks refuses packs that a release for an architecture and with a kernel cannot bring.
func checkPacks(packs []*pack.Info, arch, kernel string) error {
	for _, p := range packs {
		switch {
		case p.Arch != arch:
			return fmt.Errorf("%s: the pack %s is for %s, the release for %s", p.File, p.Name, p.Arch, arch)
		case !p.Fits(kernel):
			return fmt.Errorf("%s: %s", p.File, p.Misfit(kernel))
		case p.Kernel != nil && !p.Named(filepath.Base(p.File)):
			return fmt.Errorf("%s: nodes know by its name that a release brings a driver of the kernel: rename the file to %s-%s.erofs", p.File, p.Name, p.Arch)
		}
	}
	return nil
}

func newReleaseSignCommand(env *Env) *cobra.Command {
	var s signing
	c := &cobra.Command{
		Use: "sign FOLDER", Short: "Sign what is staged, or the timestamp again", Args: exactArgs(1, "FOLDER"),
		Long: `Add the signatures of your keys to what is staged, and publish it once there
are enough. With nothing staged it renews snapshot and timestamp: run it before the
timestamp expires, or nodes consider the folder frozen.`,
		Example: "  oscine release sign releases --keys /media/offline/keys\n  oscine release sign releases --keys ~/keys   # each day",
		RunE: func(c *cobra.Command, args []string) error {
			r, err := s.open(env, args[0])
			if err != nil {
				return err
			}
			result, err := r.Sign()
			if err != nil {
				return err
			}
			return tellResult(env.Out, result)
		},
	}
	s.add(c)
	return c
}

func printReleases(out io.Writer, all []*update.Manifest) error {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "VERSION\tMACHINE\tKERNEL\tBUILT\tFULL\tDELTAS\tFROM\tFLOOR")
	dash := func(text string) string {
		if text == "" {
			return "-"
		}
		return text
	}
	for _, m := range all {
		deltas := map[string]int64{}
		for _, t := range append(slices.Clone(m.Root.Deltas), m.Image.Deltas...) {
			_, from, _ := strings.Cut(t.Path, ".from-")
			deltas[from] += t.Size
		}
		var texts []string
		for from, size := range deltas {
			texts = append(texts, from+" "+printable.Bytes(size))
		}
		slices.Sort(texts)
		fmt.Fprintf(w, "%s\t%s-%s\t%s\t%s\t%s\t%s\t%s\t%s\n", m.Version, m.Arch, m.Flavour, printable.Text(m.Kernel), m.Built.Format("2006-01-02 15:04"),
			printable.Bytes(m.Image.Full.Size+m.Root.Full.Size), dash(strings.Join(texts, ", ")), dash(m.MinVersion), dash(m.Floor))
	}
	return w.Flush()
}

func newReleaseListCommand(env *Env) *cobra.Command {
	var output *string
	c := &cobra.Command{
		Use: "list FOLDER", Aliases: []string{"ls"}, Short: "List the releases in a folder", Args: exactArgs(1, "FOLDER"),
		Long: "List the releases in a release folder of this machine, newest first, staged ones too. Signatures are not checked: oscine release verify does.",
		RunE: func(c *cobra.Command, args []string) error {
			all, err := repository.Open(args[0], nil, repository.Options{}).List()
			if err != nil {
				return err
			}
			var names []string
			for _, m := range all {
				names = append(names, m.Version)
			}
			return listing{all, names, func(w io.Writer, _ bool) error {
				if len(all) == 0 {
					fmt.Fprintf(env.Err, "%s holds no release: add one with oscine release create\n", args[0])
					return nil
				}
				return printReleases(w, all)
			}}.print(env.Out, *output)
		},
	}
	output = addOutput(c)
	return c
}
