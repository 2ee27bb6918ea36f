package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"oscine.dev/oscine/internal/artifact"
	"oscine.dev/oscine/internal/printable"
	"oscine.dev/oscine/internal/update"
	"oscine.dev/oscine/internal/update/repository"
	"oscine.dev/oscine/internal/update/source"
)

func newReleaseVerifyCommand(env *Env) *cobra.Command {
	var rootFile string
	var output *string
	var plain *bool
	c := &cobra.Command{
		Use: "verify FOLDER|URL|REFERENCE", Short: "Check a release folder as a node would, and every file in it", Args: exactArgs(1, "FOLDER, URL or REFERENCE"),
		Long: `Check signatures, versions and expiry from a trusted root on, as a node does; then read
every file and compare it with what was signed, and apply every transfer, full and
delta. --root is the root that nodes were given, which need not be the newest.`,
		Example: "  oscine release verify releases --root releases/metadata/1.root.json\n  oscine release verify https://example.com/releases --root root.json\n  oscine release verify oci://ghcr.io/acme/releases:stable --root root.json",
		RunE: func(c *cobra.Command, args []string) error {
			root, err := readBounded(env, rootFile, 1<<20, "so not root metadata")
			if err != nil {
				return err
			}
			state, err := os.MkdirTemp("", "oscine-verify-")
			if err != nil {
				return err
			}
			defer os.RemoveAll(state)
			waiting := newWaiting(env, args[0])
			access, err := registries(*plain)
			if err != nil {
				return err
			}
			r, err := source.Verify(c.Context(), args[0], update.Options{Root: root, State: state, Registry: access}, func(name string) { waiting.tell(args[0] + ": " + name) })
			waiting.done()
			if err != nil {
				return err
			}
			return listing{r, nil, func(w io.Writer, _ bool) error {
				if err := printReleases(w, r.Releases); err != nil {
					return err
				}
				_, err := fmt.Fprintf(w, "%d files with %s match their signatures, which expire at %s\n", r.Targets, printable.Bytes(r.Bytes), r.Expires["timestamp"].Format(time.RFC3339))
				return err
			}}.print(env.Out, *output)
		},
	}
	c.Flags().StringVar(&rootFile, "root", "", "file of the trusted root metadata")
	plain = addPlainHTTP(c)
	output = addReportOutput(c)
	_ = c.MarkFlagRequired("root") // fails for an unknown flag only
	return c
}

func newReleasePushCommand(env *Env) *cobra.Command {
	var plain *bool
	c := &cobra.Command{
		Use: "push FOLDER REFERENCE", Short: "Write a release folder to a registry", Args: exactArgs(2, "FOLDER and REFERENCE"),
		Long: `Write what is published of a release folder to a registry, oci://HOST/REPOSITORY:TAG, as
one artifact. Files that are there already are not sent, and the tag moves last: nodes
see the old state or the new one. Push again after each oscine release create and
sign. Credentials are those of docker login.`,
		Example: "  oscine release push releases oci://ghcr.io/acme/releases:stable",
		RunE: func(c *cobra.Command, args []string) error {
			r, err := artifact.Parse(args[1])
			if err != nil {
				return usageError{err}
			}
			access, err := registries(*plain)
			if err != nil {
				return err
			}
			digest, err := repository.Push(c.Context(), args[0], r, access, func(file string, size int64, in io.ReadCloser) io.ReadCloser {
				return newReadProgress(env, "push "+file, size, in)
			})
			if err != nil {
				return err
			}
			fmt.Fprintf(env.Out, "%s pushed\n%s\n", r.Source(), r.Pinned(digest).Source())
			return nil
		},
	}
	plain = addPlainHTTP(c)
	return c
}

func newReleaseServeCommand(env *Env) *cobra.Command {
	var listen string
	c := &cobra.Command{
		Use: "serve FOLDER", Short: "Serve a release folder over HTTP", Args: exactArgs(1, "FOLDER"),
		Long: `Serve a release folder over HTTP until interrupted, on this machine's loopback
address unless --listen says otherwise. Nodes trust the folder's signatures, so that
anyone may serve it, and anyone may read it.`,
		Example: "  oscine release serve releases\n  oscine release serve releases --listen 192.168.1.10:8099",
		RunE: func(c *cobra.Command, args []string) error {
			root, err := repository.OpenPublished(args[0])
			if err != nil {
				return err
			}
			defer root.Close()
			l, err := net.Listen("tcp", listen)
			if err != nil {
				return err
			}
			fmt.Fprintf(env.Out, "http://%s\n", l.Addr())
			return serveReleases(c.Context(), l, root)
		},
	}
	c.Flags().StringVar(&listen, "listen", "127.0.0.1:8099", "address and port to listen on")
	return c
}

// serveReleases serves what is published: no listings, nothing hidden.
func serveReleases(ctx context.Context, l net.Listener, root *os.Root) error {
	files := http.FileServerFS(root.FS())
	server := &http.Server{ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := path.Clean("/" + r.URL.Path)[1:]
		info, err := root.Stat(name)
		published := strings.HasPrefix(name, "metadata/") || strings.HasPrefix(name, "targets/")
		switch {
		case r.Method != http.MethodGet && r.Method != http.MethodHead:
			http.Error(w, "only GET", http.StatusMethodNotAllowed)
		case err != nil || !info.Mode().IsRegular() || !published || strings.Contains(name, "/."):
			http.NotFound(w, r)
		default:
			files.ServeHTTP(w, r)
		}
	})}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return context.Cause(ctx)
}

func newReleaseDeltaCommand(env *Env) *cobra.Command {
	var output *string
	c := &cobra.Command{
		Use: "delta OLD-IMAGE NEW-IMAGE", Short: "Print how large the update between two disk images is", Args: exactArgs(2, "OLD-IMAGE and NEW-IMAGE"),
		Long: `Make the full transfers of a disk image and the deltas to it from another one, apply
them, and print their sizes. Nothing is kept.`,
		Example: "  oscine release delta out/oscine-1.1.0.img out/oscine-1.2.0.img",
		RunE: func(c *cobra.Command, args []string) error {
			old, err := repository.OpenImage(args[0])
			if err != nil {
				return err
			}
			defer old.Close()
			parts, err := repository.OpenImage(args[1])
			if err != nil {
				return err
			}
			defer parts.Close()
			waiting := newWaiting(env, "make full transfers and deltas")
			r, err := repository.Compare(c.Context(), old, parts)
			waiting.done()
			if err != nil {
				return err
			}
			return listing{r, nil, func(out io.Writer, _ bool) error {
				fmt.Fprintf(out, "from %s (kernel %s) to %s (kernel %s)\n", old.Version, old.Kernel, parts.Version, parts.Kernel)
				w := tabwriter.NewWriter(out, 0, 8, 2, ' ', tabwriter.AlignRight)
				fmt.Fprintln(w, "\tSIZE\tFULL\tDELTA\tOF FULL\tDECODED IN\t")
				for _, row := range append(r.Contents, r.Total()) {
					fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%.2f %%\t%.2f s\t\n", row.Name, printable.Bytes(row.Size), printable.Bytes(row.Full), printable.Bytes(row.Delta), 100*float64(row.Delta)/float64(row.Full), row.Decoding.Seconds())
				}
				return w.Flush()
			}}.print(env.Out, *output)
		},
	}
	output = addReportOutput(c)
	return c
}
