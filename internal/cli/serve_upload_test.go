package cli

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"connectrpc.com/connect"

	pb "oscine.dev/oscine/internal/api/oscinepb"
	pbconnect "oscine.dev/oscine/internal/api/oscinepb/oscinepbconnect"
	"oscine.dev/oscine/internal/serve/bundle"
	"oscine.dev/oscine/internal/signature"
)

// store keeps one upload, and ends it after a number of bytes.
type store struct {
	pbconnect.UnimplementedModelsHandler
	cut     int // 0: not
	content []byte
	first   *pb.Chunk
	stored  bool
	signed  []byte
}

func (s *store) Sign(_ context.Context, req *connect.Request[pb.SignModelRequest]) (*connect.Response[pb.SignModelResponse], error) {
	s.signed = req.Msg.Signature
	return connect.NewResponse(&pb.SignModelResponse{}), nil
}

func (s *store) Received(context.Context, *connect.Request[pb.ReceivedModelRequest]) (*connect.Response[pb.ReceivedModelResponse], error) {
	return connect.NewResponse(&pb.ReceivedModelResponse{Stored: s.stored, ReceivedBytes: int64(len(s.content))}), nil
}

func (s *store) Upload(_ context.Context, stream *connect.ClientStream[pb.Chunk]) (*connect.Response[pb.UploadModelResponse], error) {
	stream.Receive()
	s.first = &pb.Chunk{Digest: stream.Msg().Digest, Offset: stream.Msg().Offset, Folder: stream.Msg().Folder}
	for stream.Receive() {
		s.content = append(s.content, stream.Msg().Data...)
		if s.cut > 0 && len(s.content) > s.cut {
			s.content = s.content[:s.cut]
			return nil, connect.NewError(connect.CodeUnavailable, errors.New("the node goes down"))
		}
	}
	sum := sha256.Sum256(s.content)
	s.stored = true
	return connect.NewResponse(&pb.UploadModelResponse{Digest: "sha256:" + hex.EncodeToString(sum[:])}), stream.Err()
}

func TestServeGoesOnWithAnUpload(t *testing.T) {
	models := &store{cut: 700_000}
	var applied string
	n := &fakeNode{models: models, apply: func(req *pb.ApplyRequest) (*pb.ApplyResponse, error) {
		applied = req.Manifest
		return &pb.ApplyResponse{Results: []*pb.ApplyResult{{Kind: "Model", Name: "net", Action: "created"}}}, nil
	}}
	n.serve(t)
	dir := filepath.Join(n.dir, "net")
	if err := errors.Join(os.Mkdir(dir, 0o700), os.WriteFile(filepath.Join(dir, "net.onnx"), bytes.Repeat([]byte("graph"), 200_000), 0o600),
		os.WriteFile(filepath.Join(dir, "weights"), bytes.Repeat([]byte("1234567"), 100_000), 0o600)); err != nil {
		t.Fatal(err)
	}
	if status, _, errOut := n.command(t, "serve", "--wait", "0", dir); status == 0 || !strings.Contains(errOut, "run the same command again to resume") {
		t.Fatalf("a cut upload: exit status %d, %s", status, errOut)
	}
	models.cut = 0
	status, _, errOut := n.command(t, "serve", "--wait", "0", dir)
	if status != 0 || !strings.Contains(errOut, "resuming from there") {
		t.Fatalf("exit status %d, %s", status, errOut)
	}
	if models.first.Offset != 700_000 || !models.first.Folder || !strings.Contains(applied, models.first.Digest) {
		t.Errorf("it went on with %v and applied %s", models.first, applied)
	}
	if size, err := bundle.Unpack(bytes.NewReader(models.content), t.TempDir(), 1<<30); err != nil || size != 1_700_000 {
		t.Errorf("the node has %d bytes, %v", size, err)
	}
	models.first = nil
	if status, _, errOut := n.command(t, "serve", "--wait", "0", dir); status != 0 || models.first != nil {
		t.Errorf("again: exit status %d, %s, sent %v", status, errOut, models.first)
	}
}

// A file's signature is sent with it, and what another tool has signed is left.
func TestServeSendsTheSignature(t *testing.T) {
	models := &store{stored: true}
	n := &fakeNode{models: models, apply: func(*pb.ApplyRequest) (*pb.ApplyResponse, error) {
		return &pb.ApplyResponse{Results: []*pb.ApplyResult{{Kind: "Model", Name: "net", Action: "created"}}}, nil
	}}
	n.serve(t)
	file := filepath.Join(n.dir, "net.onnx")
	for _, c := range []struct{ beside, sent, told string }{
		{`{"a":1}`, `{"a":1}`, ""},
		{"\x89 of gpg", "", "net.onnx.sig is no signature of model_signing: it is not sent\n"},
		{strings.Repeat(" ", signature.MaxFileBytes) + "{}", "", "it is not sent\n"},
	} {
		models.signed = nil
		if err := errors.Join(os.WriteFile(file, []byte("graph"), 0o600), os.WriteFile(file+".sig", []byte(c.beside), 0o600)); err != nil {
			t.Fatal(err)
		}
		if status, _, errOut := n.command(t, "serve", "--wait", "0", file); status != 0 || string(models.signed) != c.sent || !strings.Contains(errOut, c.told) {
			t.Errorf("%.20q beside it: exit status %d, %q sent, %s", c.beside, status, models.signed, errOut)
		}
	}
}
