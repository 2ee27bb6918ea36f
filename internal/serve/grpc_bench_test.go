package serve_test

import (
	"bytes"
	"encoding/binary"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"google.golang.org/protobuf/proto"

	pb "oscine.dev/oscine/internal/serve/front/oip/inferencepb"
)

const grpcInfer = "/inference.GRPCInferenceService/ModelInfer"

// digitsMessage is the request of digitsBody in gRPC's frame.
func digitsMessage(b *testing.B) []byte {
	b.Helper()
	_, body := digitsBody(true)
	message, err := proto.Marshal(&pb.ModelInferRequest{ModelName: "m",
		Inputs:           []*pb.ModelInferRequest_InferInputTensor{{Name: "image", Datatype: "FP32", Shape: []int64{1, 1, 28, 28}}},
		RawInputContents: [][]byte{body[len(body)-3136:]}})
	if err != nil {
		b.Fatal(err)
	}
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...)
}

// benchmarkGRPC measures the same inference over gRPC, by the handler alone and
// by a client of HTTP/2 over a socket.
func benchmarkGRPC(b *testing.B, server *httptest.Server, measure func(*testing.B, func())) {
	frame := digitsMessage(b)
	b.Run("handler-grpc", func(b *testing.B) {
		measure(b, func() {
			r := httptest.NewRequest(http.MethodPost, grpcInfer, bytes.NewReader(frame))
			r.ProtoMajor = 2
			r.Header.Set("Content-Type", "application/grpc")
			w := &discard{header: http.Header{}, status: 200}
			if server.Config.Handler.ServeHTTP(w, r); w.header.Get(http.TrailerPrefix+"Grpc-Status") != "0" {
				b.Fatalf("%v", w.header)
			}
		})
	})
	b.Run("grpc", func(b *testing.B) {
		var p http.Protocols
		p.SetUnencryptedHTTP2(true)
		client := &http.Client{Transport: &http.Transport{Protocols: &p}}
		defer client.CloseIdleConnections()
		measure(b, func() {
			r, err := http.NewRequest(http.MethodPost, server.URL+grpcInfer, bytes.NewReader(frame))
			if err != nil {
				b.Fatal(err)
			}
			r.Header.Set("Content-Type", "application/grpc")
			resp, err := client.Do(r)
			if err != nil {
				b.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.Trailer.Get("Grpc-Status") != "0" {
				b.Fatalf("%v, %v", resp.Trailer, err)
			}
			resp.Body.Close()
		})
	})
}
