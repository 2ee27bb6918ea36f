package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"oscine.dev/oscine/internal/image"
	"oscine.dev/oscine/internal/printable"
	"oscine.dev/oscine/internal/quantity"
)

// newImageBuildCommand is oscine image build: a disk image of Oscine.
func newImageBuildCommand(env *Env) *cobra.Command {
	var o image.Options
	var size string
	var asJSON, quiet bool
	c := &cobra.Command{
		Use:   "build",
		Short: "Build a disk image of Oscine",
		Long: `Build a disk image that boots by UEFI on real and virtual machines: Debian's
kernel, Oscine's own programs and what they need, on a read-only root that is
verified block by block, with a second slot for updates and a data partition.

It runs without root, inside Oscine's checkout (or with --source), and needs
the go command. Packages are fetched once, checked against pinned digests, and
kept in the cache folder ($OSCINE_CACHE, or oscine in the user's cache folder).
Two builds of one commit give the same root and the same unified kernel image.`,
		Example: "  oscine image build -o out/oscine-amd64.img\n  oscine image build --arch arm64 --kernel metal --size 4GiB",
		Args:    exactArgs(0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if o.Size, err = quantity.ParseBytes(size); err != nil {
				return usageError{fmt.Errorf("--size %q: %w", size, err)}
			}
			if dir := filepath.Dir(o.Out); o.Out != "" {
				if err := os.MkdirAll(dir, 0o755); err != nil {
					return fmt.Errorf("make the folder of %s: %w", o.Out, err)
				}
				if err := checkOutput("output", o.Out); err != nil {
					return err
				}
			}
			var done func()
			o.Log, done = workLog(env, quiet)
			r, err := image.Build(cmd.Context(), o)
			done()
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(env.Out, r)
			}
			return printBuilt(env.Out, r)
		},
	}
	c.Flags().StringVar(&o.Arch, "arch", "", "amd64 or arm64 (default this machine's)")
	c.Flags().StringVar(&o.Flavour, "kernel", "cloud", "cloud for virtual machines, metal for real ones, rt for metal with PREEMPT_RT")
	c.Flags().StringVar(&size, "size", "1GiB", "size of the disk; the data partition takes what the slots leave, and grows on a larger disk")
	c.Flags().StringVarP(&o.Out, "output", "o", "", "file to write (default oscine-VERSION-KERNEL-ARCH.img)")
	c.Flags().StringVar(&o.Version, "version", image.DefaultVersion, "version that the image carries")
	c.Flags().StringVar(&o.Source, "source", ".", "folder inside Oscine's checkout")
	c.Flags().StringVar(&o.Programs, "programs", "", "folder of built programs to use instead of building them")
	c.Flags().StringVar(&o.Key, "key", "", "PEM file with the RSA key and certificate that sign what the firmware starts (default a key of this machine)")
	c.Flags().StringVar(&o.Secure, "secureboot", "", "folder of oscine keys secureboot: its db key signs what the firmware starts, the boot loader enrols its keys in firmware in setup mode, and the kernel locks itself down")
	c.Flags().StringVar(&o.Releases, "releases", "", "root metadata of the release folder that the image trusts for upgrades, metadata/N.root.json")
	c.Flags().StringVar(&o.Cmdline, "cmdline", "", "further kernel parameters")
	c.Flags().BoolVar(&o.Compress, "compress", false, "also write the image compressed, FILE.zst")
	c.Flags().BoolVar(&asJSON, "json", false, "print the result as JSON")
	c.Flags().BoolVarP(&quiet, "quiet", "q", false, "no progress lines")
	return c
}

func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

func printBuilt(w io.Writer, r *image.Result) error {
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintf(t, "image\t%s\n", r.File)
	fmt.Fprintf(t, "version\t%s for %s, kernel %s\n", r.Version, r.Arch, r.Kernel)
	fmt.Fprintf(t, "root hash\t%s\n", r.RootHash)
	fmt.Fprintf(t, "size\t%s, of which %s are written\n", printable.Bytes(r.Size), printable.Bytes(r.Allocated))
	if r.Compressed > 0 {
		fmt.Fprintf(t, "compressed\t%s.zst, %s\n", r.File, printable.Bytes(r.Compressed))
	}
	fmt.Fprintf(t, "root\t%s\n", printable.Bytes(r.RootSize))
	fmt.Fprintf(t, "kernel image\t%s, %s, of which initramfs %s\n", r.UKI, printable.Bytes(r.UKISize), printable.Bytes(r.InitramfsSize))
	fmt.Fprintf(t, "PCR 11\t%s\n", r.PCR11)
	fmt.Fprintf(t, "took\t%.1f s\n", r.Took.Seconds())
	return t.Flush()
}

// newImageInspectCommand is oscine image inspect: what is on an image and why.
func newImageInspectCommand(env *Env) *cobra.Command {
	var sbom string
	var output *string
	c := &cobra.Command{
		Use:   "inspect FILE|FOLDER",
		Short: "List every file of an image, its size and why it is there",
		Long: `List every file on the root of a disk image, or of a folder that holds an
unpacked root, with its size and the reason why it is there. All blocks of the
root are checked against the root hash in the unified kernel image first.

A file that the root's own list does not explain is marked UNEXPLAINED, and the
command then fails. The bill of materials has every Debian package and Go
module with the licence that it declares, as an SPDX expression.`,
		Example: "  oscine image inspect out/oscine-amd64.img\n  oscine image inspect out/oscine-amd64.img --sbom out/sbom.spdx.json",
		Args:    exactArgs(1, "FILE|FOLDER"),
		RunE: func(_ *cobra.Command, args []string) (err error) {
			if _, err := os.Stat(args[0]); err != nil {
				return fmt.Errorf("%w; oscine image build makes an image", unreadable(args[0], err))
			}
			if sbom != "" && sbom != "-" {
				if err := checkOutput("sbom", sbom); err != nil {
					return err
				}
			}
			r, err := image.Inspect(args[0])
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, r.Close()) }()
			switch {
			case sbom == "-":
				return r.WriteSBOM(env.Out)
			case sbom != "":
				return writeSBOM(r, sbom)
			}
			err = listing{r, nil, func(w io.Writer, _ bool) error { return printContents(w, r) }}.print(env.Out, *output)
			return errors.Join(err, unexplained(args[0], r))
		},
	}
	c.Flags().StringVar(&sbom, "sbom", "", "write a software bill of materials (SPDX 2.3 JSON) to this file, - for standard output")
	output = addReportOutput(c)
	return c
}

func writeSBOM(r *image.Report, name string) error {
	f, err := os.Create(name)
	if err != nil {
		return fmt.Errorf("write the SBOM: %w", err)
	}
	if err := errors.Join(r.WriteSBOM(f), f.Close()); err != nil {
		return errors.Join(err, os.Remove(name))
	}
	return nil
}

func printContents(w io.Writer, r *image.Report) error {
	fmt.Fprintf(w, "Oscine %s for %s, kernel %s\n", r.Version, r.Arch, r.Kernel)
	if r.Slot != "" {
		fmt.Fprintf(w, "starts %s; root on %s, root hash %s checked\n", r.UKI, r.Slot, r.RootHash)
		fmt.Fprintf(w, "kernel parameters: %s\n", r.Cmdline)
		fmt.Fprintf(w, "PCR 11 of a TPM then: %s\n", r.PCR11)
	}
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	var total int64
	fmt.Fprintf(t, "\nMODE\tSIZE\tFILE\tFROM\tWHY\n")
	for _, f := range r.Files {
		name := "/" + f.Path
		if f.Link != "" {
			name += " -> " + f.Link
		}
		total += f.Size
		fmt.Fprintf(t, "%s\t%d\t%s\t%s\t%s\n", f.Mode, f.Size, name, f.From, f.Why)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(w, "%d entries, %s\n", len(r.Files), printable.Bytes(total))
	if len(r.Initramfs) > 0 {
		fmt.Fprintf(w, "\ninitramfs (in the signed unified kernel image)\n")
		t = tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
		for _, e := range r.Initramfs {
			fmt.Fprintf(t, "%s\t%d\t/%s\n", e.Mode, e.Size, e.Path)
		}
	}
	return t.Flush()
}

func unexplained(name string, r *image.Report) error {
	var n int
	first := ""
	for _, f := range r.Files {
		if strings.HasPrefix(f.Why, image.Unexplained) {
			if n++; first == "" {
				first = f.Path
			}
		}
	}
	if n > 0 {
		return fmt.Errorf("%s: %d files are not as the root's list says, /%s first", name, n, first)
	}
	return nil
}
