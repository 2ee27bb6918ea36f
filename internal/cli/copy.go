package cli

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	pb "oscine.dev/oscine/internal/api/oscinepb"
	"oscine.dev/oscine/internal/client"
	"oscine.dev/oscine/internal/object"
)

// chunkBytes is how much of a stream one message carries.
const chunkBytes = 256 << 10

func newCpCommand(env *Env) *cobra.Command {
	return &cobra.Command{
		Use: "cp SOURCE TARGET", Short: "Copy files between here and a running workload",
		ValidArgsFunction: func(c *cobra.Command, _ []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
			names, _ := completeNames(":/", func(ctx context.Context) []string { return objectNames(ctx, env, string(object.KindWorkload)) })(c, nil, begun)
			return names, cobra.ShellCompDirectiveNoSpace // and files
		},
		Args:    exactArgs(2, "SOURCE and TARGET"),
		Long:    "Copy a file or folder. The side inside a workload is written WORKLOAD:/PATH.",
		Example: "  oscine cp model.bin web:/data/model.bin\n  oscine cp web:/data/results .",
		RunE: func(c *cobra.Command, args []string) error {
			from, fromPath, fromThere := strings.Cut(args[0], ":")
			to, toPath, toThere := strings.Cut(args[1], ":")
			if fromThere == toThere {
				return usageError{errors.New("exactly one side is written WORKLOAD:/PATH")}
			}
			node, err := env.Client()
			if err != nil {
				return err
			}
			if toThere {
				return copyIn(c.Context(), node, args[0], to, toPath)
			}
			return copyOut(c.Context(), node, from, fromPath, args[1])
		},
	}
}

// copyIn sends source as a tar stream; the node unpacks it in the target's
// folder under the target's base name, or inside the target if it ends in "/".
func copyIn(ctx context.Context, node *client.Client, source, workload, target string) error {
	if !path.IsAbs(target) {
		return usageError{fmt.Errorf("%q: the path in the workload must be absolute", target)}
	}
	if _, err := os.Lstat(source); err != nil {
		return unreadable(source, err)
	}
	dir, base := path.Split(target)
	if base == "" {
		base = filepath.Base(source)
	}
	stream := node.Workloads.CopyIn(ctx)
	if err := stream.Send(&pb.CopyInRequest{Workload: workload, Path: path.Clean(dir)}); err != nil {
		return sendError(stream.CloseAndReceive, err)
	}
	w := &chunkWriter{send: func(p []byte) error { return stream.Send(&pb.CopyInRequest{Tar: p}) }}
	if err := writeTar(w, source, base); err != nil {
		return sendError(stream.CloseAndReceive, err)
	}
	_, err := stream.CloseAndReceive()
	return err
}

// sendError prefers the node's own answer to the end of file that a refused
// stream gives its sender.
func sendError[T any](closeStream func() (*connect.Response[T], error), err error) error {
	if _, answer := closeStream(); answer != nil && errors.Is(err, io.EOF) {
		return answer
	}
	return err
}

// chunkWriter splits what is written into messages.
type chunkWriter struct{ send func([]byte) error }

func (c *chunkWriter) Write(p []byte) (int, error) {
	written := 0
	for len(p) > 0 {
		n := min(len(p), chunkBytes)
		if err := c.send(p[:n]); err != nil {
			return written, err
		}
		written += n
		p = p[n:]
	}
	return written, nil
}

func writeTar(w io.Writer, source, base string) error {
	tw := tar.NewWriter(w)
	err := filepath.WalkDir(source, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(source, file)
		if err != nil {
			return err
		}
		return addToTar(tw, file, path.Join(base, filepath.ToSlash(rel)), d)
	})
	if err != nil {
		return fmt.Errorf("copy %s: %w", source, err)
	}
	return tw.Close()
}

func addToTar(tw *tar.Writer, file, name string, d fs.DirEntry) error {
	info, err := d.Info()
	if err != nil {
		return err
	}
	link := ""
	if info.Mode()&fs.ModeSymlink != 0 {
		if link, err = os.Readlink(file); err != nil {
			return err
		}
	}
	if !info.Mode().IsRegular() && !info.IsDir() && link == "" {
		return fmt.Errorf("%s is neither a file, a folder nor a link", file)
	}
	h, err := tar.FileInfoHeader(info, link)
	if err != nil {
		return err
	}
	h.Name, h.Uid, h.Gid, h.Uname, h.Gname = name, 0, 0, "", ""
	if err := tw.WriteHeader(h); err != nil || !info.Mode().IsRegular() {
		return err
	}
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(tw, f)
	return err
}

func copyOut(ctx context.Context, node *client.Client, workload, source, target string) error {
	if !path.IsAbs(source) {
		return usageError{fmt.Errorf("%q: the path in the workload must be absolute", source)}
	}
	stream, err := node.Workloads.CopyOut(ctx, connect.NewRequest(&pb.CopyOutRequest{Workload: workload, Path: source}))
	if err != nil {
		return err
	}
	defer stream.Close()
	info, err := os.Stat(target)
	inside := err == nil && info.IsDir()
	dir, rename := target, ""
	if !inside {
		dir, rename = filepath.Dir(target), filepath.Base(target)
	}
	base := path.Base(path.Clean(source))
	if base == "/" {
		base = "." // as the node names its root
	}
	return readTar(&streamReader{stream: stream}, dir, base, rename)
}

// streamReader reads the data of a node's download stream.
type streamReader struct {
	stream *connect.ServerStreamForClient[pb.Chunk]
	rest   []byte
}

func (s *streamReader) Read(p []byte) (int, error) {
	for len(s.rest) == 0 {
		if !s.stream.Receive() {
			if err := s.stream.Err(); err != nil {
				return 0, err
			}
			return 0, io.EOF
		}
		s.rest = s.stream.Msg().Data
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

// readTar unpacks what base names below dir, under the name rename unless that
// is empty. Nothing else is written: the node may be hostile. Only base itself,
// or what lies in it where it is a folder, is taken from the stream.
func readTar(r io.Reader, dir, base, rename string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("copy to %s: %w", dir, err)
	}
	defer root.Close()
	target := base
	if rename != "" {
		target = rename
	}
	tr := tar.NewReader(r)
	h, err := tr.Next()
	if err != nil {
		return err
	}
	if path.Clean(h.Name) != base {
		return fmt.Errorf("the node sent %q where %q was asked for: nothing was written", h.Name, base)
	}
	if err := extract(root, tr, h, target); err != nil {
		return fmt.Errorf("copy %s: %w", h.Name, err)
	}
	// What lies in the folder is written through the folder alone, so that a
	// link in the stream cannot lead beside it.
	var folder *os.Root
	if h.Typeflag == tar.TypeDir {
		if folder, err = root.OpenRoot(target); err != nil {
			return fmt.Errorf("copy %s: %w", h.Name, err)
		}
		defer folder.Close()
	}
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		name, within := path.Clean(h.Name), true
		if base != "." {
			name, within = strings.CutPrefix(name, base+"/")
		}
		if folder == nil || !within || !filepath.IsLocal(name) {
			return fmt.Errorf("the node sent %q where %q was asked for: it was left out, and so is what follows", h.Name, base)
		}
		if err := extract(folder, tr, h, name); err != nil {
			return fmt.Errorf("copy %s: %w", h.Name, err)
		}
	}
}

func extract(root *os.Root, tr *tar.Reader, h *tar.Header, name string) error {
	mode := fs.FileMode(h.Mode) & 0o777
	switch h.Typeflag {
	case tar.TypeDir:
		if err := root.Mkdir(name, mode|0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		return nil
	case tar.TypeSymlink:
		return root.Symlink(h.Linkname, name)
	case tar.TypeReg:
		f, err := root.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, mode)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, tr)
		return errors.Join(err, f.Close())
	}
	return nil // devices and pipes mean nothing outside their machine
}
