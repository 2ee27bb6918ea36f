package cli

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"connectrpc.com/connect"

	pb "oscine.dev/oscine/internal/api/oscinepb"
	"oscine.dev/oscine/internal/bounded"
	"oscine.dev/oscine/internal/client"
	"oscine.dev/oscine/internal/printable"
	"oscine.dev/oscine/internal/serve/bundle"
	"oscine.dev/oscine/internal/signature"
)

// modelSource is a model on this machine: a file, or several.
type modelSource struct {
	path  string
	files []bundle.File // of a folder, or a file with those that it needs
}

// findModel finds what belongs to the model at a path, and what is surely no
// model. Which formats are read, the node's packs say.
func findModel(path string) (*modelSource, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, missing{fmt.Errorf("%s: there is no such file or folder", path)}
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular() && !info.IsDir():
		return nil, fmt.Errorf("%s is neither a file nor a folder", path)
	case info.Size() == 0 && !info.IsDir():
		return nil, fmt.Errorf("%s is empty", path)
	}
	files, err := bundle.Find(path)
	return &modelSource{path, files}, err
}

// write writes what is to be uploaded.
func (s *modelSource) write(w io.Writer) error {
	if len(s.files) > 0 {
		return bundle.Write(w, s.files)
	}
	f, err := os.Open(s.path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.CopyBuffer(w, struct{ io.Reader }{f}, make([]byte, chunkBytes))
	return err
}

// sum returns the digest and the number of the bytes to upload.
func (s *modelSource) sum(ctx context.Context) (digest string, size int64, err error) {
	hash, n := sha256.New(), &counted{ctx: ctx}
	if err := s.write(io.MultiWriter(hash, n)); err != nil {
		return "", 0, err
	}
	return "sha256:" + hex.EncodeToString(hash.Sum(nil)), n.bytes, nil
}

// counted counts bytes until its context ends.
type counted struct {
	ctx   context.Context
	bytes int64
}

func (c *counted) Write(p []byte) (int, error) {
	c.bytes += int64(len(p))
	return len(p), c.ctx.Err()
}

// upload brings the model to the node, with the signature that lies beside its file, and returns
// its digest.
func (s *modelSource) upload(ctx context.Context, env *Env, node *client.Client) (string, error) {
	digest, err := s.send(ctx, env, node)
	if err != nil || len(s.files) > 0 { // a folder's signature is in it
		return digest, err
	}
	f, err := os.Open(s.path + signature.Suffix)
	if errors.Is(err, os.ErrNotExist) {
		return digest, nil
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	raw, err := bounded.ReadAll(f, signature.MaxFileBytes)
	if errors.Is(err, bounded.ErrTooLarge) || err == nil && !json.Valid(raw) { // others sign files, too
		fmt.Fprintf(env.Err, "%s is no signature of model_signing: it is not sent\n", f.Name())
		return digest, nil
	}
	if err != nil {
		return "", fmt.Errorf("read the signature %s: %w", f.Name(), err)
	}
	_, err = node.Models.Sign(ctx, connect.NewRequest(&pb.SignModelRequest{Digest: digest, Signature: raw}))
	return digest, err
}

// send brings the model to the node and returns its digest. What the node has
// already is not sent.
func (s *modelSource) send(ctx context.Context, env *Env, node *client.Client) (string, error) {
	reading := newWaiting(env, "reading "+s.path)
	digest, size, err := s.sum(ctx)
	reading.done()
	if err != nil {
		return "", err
	}
	folder := len(s.files) > 0
	there, err := node.Models.Received(ctx, connect.NewRequest(&pb.ReceivedModelRequest{Digest: digest, Folder: folder}))
	if err != nil {
		return "", err
	}
	if there.Msg.Stored {
		return digest, nil
	}
	from := there.Msg.ReceivedBytes
	if from > size || from < 0 {
		from = 0
	}
	if from > 0 {
		fmt.Fprintf(env.Err, "%s: the node has %s of %s; resuming from there\n", s.path, printable.Bytes(from), printable.Bytes(size))
	}
	stream := node.Models.Upload(ctx)
	if err := stream.Send(&pb.Chunk{Digest: digest, Offset: from, Folder: folder}); err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	bar := newProgress(env, s.path, size)
	bar.at(from)
	chunks := &chunkWriter{send: func(p []byte) error {
		bar.add(len(p))
		return stream.Send(&pb.Chunk{Data: p})
	}}
	err = s.write(&after{w: chunks, skip: from})
	bar.done()
	if err != nil {
		return "", s.cut(ctx, sendError(stream.CloseAndReceive, err))
	}
	taking := newWaiting(env, s.path+": the node is storing it")
	defer taking.done()
	resp, err := stream.CloseAndReceive()
	if err != nil {
		return "", s.cut(ctx, err)
	}
	return resp.Msg.Digest, nil
}

// cut is the error of an upload that did not end well, with what helps.
func (s *modelSource) cut(ctx context.Context, err error) error {
	if connect.CodeOf(err) == connect.CodeUnavailable || ctx.Err() != nil {
		err = fmt.Errorf("%w (run the same command again to resume)", err)
	}
	return fmt.Errorf("send %s: %w", s.path, err)
}

// after leaves out the first bytes.
type after struct {
	w    io.Writer
	skip int64
}

func (a *after) Write(p []byte) (int, error) {
	left := min(a.skip, int64(len(p)))
	a.skip -= left
	if len(p) == int(left) {
		return len(p), nil
	}
	n, err := a.w.Write(p[left:])
	return n + int(left), err
}

// tell says which files go with a model of several.
func (s *modelSource) tell(w io.Writer) {
	if info, err := os.Stat(s.path); err != nil || info.IsDir() || len(s.files) == 0 {
		return
	}
	var names []string
	for _, f := range s.files[1:] {
		names = append(names, f.Name)
	}
	fmt.Fprintf(w, "%s is sent with the files that it needs: %s\n", s.path, printable.Text(strings.Join(names, ", ")))
}
