package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	pb "oscine.dev/oscine/internal/api/oscinepb"
	"oscine.dev/oscine/internal/artifact"
	"oscine.dev/oscine/internal/pack"
	"oscine.dev/oscine/internal/printable"
)

// inspectedPack is what inspect shows.
type inspectedPack struct {
	Digest    string `json:"digest"`
	SizeBytes int64  `json:"sizeBytes"`
	Verity    string `json:"verity,omitempty"` // names its hash tree: ROOTHASH,SALT,BLOCKS
	// Of a pack on a node: why blocks that are read from it are not checked, when it was
	// found damaged, and from where the node fetched it.
	Unverified string     `json:"unverified,omitempty"`
	Damaged    *time.Time `json:"damaged,omitempty"`
	Source     string     `json:"source,omitempty"`
	// Whether the driver of the kernel that it brings is loaded, and why not.
	KernelState string `json:"kernelState,omitempty"`
	Signer      string `json:"signer,omitempty"`  // a name that nothing has proven yet, except on a node
	Release     string `json:"release,omitempty"` // of Oscine that it came with, in place of a signer
	Reference   string `json:"reference,omitempty"`
	// Older are the versions in whose place it is installed and on which models run still.
	Older    []olderPack   `json:"older,omitempty"`
	Manifest pack.Manifest `json:"manifest"`

	onNode bool
}

type olderPack struct {
	Version string            `json:"version"`
	Digest  string            `json:"digest"`
	Stays   map[string]string `json:"stays"` // who, with the reason; empty: it is to move
}

func newPackInspectCommand(env *Env) *cobra.Command {
	var output *string
	var plain *bool
	var arch string
	c := &cobra.Command{
		Use: "inspect NAME|FILE|REFERENCE", Short: "Show what a pack holds: of the node, of a file or in a registry",
		Long: `Show a pack's manifest, digest and signer without installing it. A word without a slash is the name of one of
the node's packs; HOST/REPOSITORY:TAG or oci:FOLDER:TAG is a reference; other paths are files.`,
		Example:           "  oscine pack inspect onnxruntime\n  oscine pack inspect out/packs/onnxruntime-amd64.erofs\n  oscine pack inspect ghcr.io/acme/packs/onnxruntime:1.31 -o json",
		ValidArgsFunction: completeListed(env, packNames), Args: exactArgs(1, "a pack's name, file or reference"),
		RunE: func(c *cobra.Command, args []string) error {
			p, err := inspectPack(c.Context(), env, args[0], arch, *plain)
			if err != nil {
				return err
			}
			return listing{p, []string{p.Manifest.Name}, p.table}.print(env.Out, *output)
		},
	}
	c.Flags().StringVar(&arch, "arch", runtime.GOARCH, "of a pack for several architectures: amd64 or arm64")
	output, plain = addOutput(c), addPlainHTTP(c)
	return c
}

func inspectPack(ctx context.Context, env *Env, name, arch string, plain bool) (*inspectedPack, error) {
	if _, err := os.Stat(name); err == nil || strings.HasSuffix(name, ".erofs") {
		p, err := pack.ReadFile(ctx, name)
		if err != nil {
			return nil, err
		}
		return &inspectedPack{Digest: p.Digest, SizeBytes: p.SizeBytes, Verity: p.Verity, Manifest: p.Manifest}, nil
	}
	if artifact.Is(name) || strings.Contains(name, "/") {
		return inspectArtifact(ctx, name, arch, plain)
	}
	node, err := env.Client()
	if err != nil {
		return nil, err
	}
	resp, err := node.Packs.List(ctx, connect.NewRequest(&pb.ListPacksRequest{}))
	if err != nil {
		return nil, err
	}
	for _, p := range resp.Msg.Packs {
		if p.Name == name { // the installed version comes first
			shown := &inspectedPack{Digest: p.Digest, SizeBytes: p.SizeBytes, Verity: p.Verity, Unverified: p.Unverified, Source: p.Source, Signer: p.Signer, Release: p.Release, KernelState: p.KernelState, onNode: true}
			for _, older := range resp.Msg.Packs {
				if older.Name == name && older.Next != "" {
					shown.Older = append(shown.Older, olderPack{older.Version, older.Digest, older.Stays})
				}
			}
			if p.Damaged != nil {
				at := p.Damaged.AsTime()
				shown.Damaged = &at
			}
			if err := json.Unmarshal([]byte(p.Manifest), &shown.Manifest); err != nil {
				return nil, fmt.Errorf("the node's manifest of %s: %w", name, err)
			}
			return shown, nil
		}
	}
	return nil, missing{fmt.Errorf("pack %s: not found on the node (see oscine pack list)", name)}
}

func inspectArtifact(ctx context.Context, name, arch string, plain bool) (*inspectedPack, error) {
	r, err := artifact.Parse(name)
	if err != nil {
		return nil, usageError{err}
	}
	access, err := registries(plain)
	if err != nil {
		return nil, err
	}
	store, err := artifact.Open(ctx, r, access)
	if err != nil {
		return nil, err
	}
	a, err := pack.FindArtifact(ctx, store, arch)
	if err != nil {
		return nil, err
	}
	return &inspectedPack{Digest: a.Digest, SizeBytes: a.SizeBytes, Verity: a.Verity, Signer: a.Signature.Signer(), Reference: a.Reference, Manifest: a.Manifest}, nil
}

func (p *inspectedPack) table(out io.Writer, _ bool) error {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	row := func(name, value string) {
		if value != "" {
			fmt.Fprintf(w, "%s\t%s\n", name, printable.Text(value))
		}
	}
	m := &p.Manifest
	row("name", m.Name)
	row("version", m.Version)
	row("arch", m.Arch)
	if p.Damaged != nil {
		again := pack.Info{Source: p.Source, Release: p.Release}
		row("damaged", "since "+p.Damaged.Local().Format(time.DateTime)+": "+again.Repair())
	}
	row("digest", p.Digest)
	root, _, _ := strings.Cut(p.Verity, ",")
	row("root hash", root)
	switch {
	case p.Unverified != "":
		row("integrity", "checked as a whole when it is mounted: "+p.Unverified)
	case p.onNode:
		row("integrity", "checked block by block (dm-verity)")
	}
	row("size", printable.Bytes(p.SizeBytes))
	if p.Reference != "" && p.Signer != "" {
		row("signed by", p.Signer+" (not checked: a node does)")
	} else {
		row("signed by", p.Signer)
	}
	row("with release", p.Release)
	row("reference", p.Reference)
	row("fetched from", p.Source)
	for _, older := range p.Older {
		for _, user := range slices.Sorted(maps.Keys(older.Stays)) {
			why := older.Stays[user]
			if why == "" {
				why = "it has not moved yet: see oscine describe"
			}
			row("on "+older.Version+" still", strings.ToLower(user)+": "+why)
		}
	}
	row("engines", strings.Join(m.Engines, ", "))
	for _, f := range m.Formats {
		row("reads", f.Name+" "+strings.Join(f.Suffixes, ", "))
	}
	row("drivers", strings.Join(m.Drivers, ", "))
	if k := m.Kernel; k != nil {
		row("kernel driver", k.Name+" "+k.Version)
		if k.CUDA != "" {
			row("CUDA", "up to "+k.CUDA)
		}
		row("for kernels", strings.Join(k.Kernels, ", "))
		row("kernel modules", strings.Join(k.Modules, ", "))
		row("state", p.KernelState)
	}
	row("tools", strings.Join(m.Tools, ", "))
	if m.MemoryBytes > 0 {
		row("memory, empty", printable.Bytes(m.MemoryBytes))
	}
	row("needs CPU", strings.Join(m.Requires.CPU, ", "))
	row("needs device", strings.Join(m.Requires.Devices, ", "))
	for _, l := range m.Licences {
		row("licence", l.Component+": "+l.SPDX)
	}
	for _, in := range m.Inputs {
		row("from", in.Name+" "+in.Version)
	}
	return w.Flush()
}
