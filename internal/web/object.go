package web

import (
	"context"
	"net/http"
	"time"

	"connectrpc.com/connect"

	pb "oscine.dev/oscine/internal/api/oscinepb"
	"oscine.dev/oscine/internal/client"
	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/printable"
)

// shownLines is how many lines of an object's log the page begins with.
const shownLines = 500

// details is one object with everything that the node knows of it.
type details struct {
	row
	YAML string `json:"yaml"`
}

type logLine struct {
	Time   int64  `json:"time"` // milliseconds since 1970
	Stream string `json:"stream"`
	Text   string `json:"text"`
}

// object streams one object: its manifest and status, its events and its log.
func (s *Server) object(w http.ResponseWriter, r *http.Request) {
	key := object.Key{Kind: object.Kind(r.URL.Query().Get("kind")), Name: r.URL.Query().Get("name")}
	if err := s.kinds.CheckKind(key.Kind); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if err := object.CheckName(key.Name); err != nil {
		http.Error(w, "the name "+err.Error(), http.StatusBadRequest)
		return
	}
	stream(w, r,
		source{"object", func(ctx context.Context, f *feed, up func()) error { return s.details(ctx, f, up, key) }},
		source{"events", func(ctx context.Context, f *feed, up func()) error {
			return s.events(ctx, f, up, &pb.EventsRequest{Kind: string(key.Kind), Name: key.Name, Follow: true, Tail: shownEvents})
		}},
		source{"log", s.log(key)},
	)
}

func (s *Server) details(ctx context.Context, f *feed, up func(), key object.Key) error {
	stream, err := s.node.Objects.Watch(ctx, connect.NewRequest(&pb.GetRequest{Kind: string(key.Kind), Name: key.Name}))
	if err != nil {
		return err
	}
	defer stream.Close()
	for stream.Receive() {
		up()
		m := stream.Msg()
		if m.Event == "deleted" {
			if err := f.send(ctx, "deleted", row{Kind: string(key.Kind), Name: key.Name}); err != nil {
				return err
			}
			continue
		}
		r, err := s.row(m.Object)
		if err != nil {
			return err
		}
		raw, err := client.ManifestJSON(m.Object)
		if err != nil {
			return err
		}
		text, err := client.BlockYAML(raw)
		if err != nil {
			return err
		}
		if err := f.send(ctx, "details", details{r, printable.Lines(string(text))}); err != nil {
			return err
		}
	}
	return ended(stream.Err())
}

// log follows the object's log over its restarts: the node ends it with the
// object's process, and what was sent is not sent again.
func (s *Server) log(key object.Key) func(context.Context, *feed, func()) error {
	var last time.Time
	return func(ctx context.Context, f *feed, up func()) error {
		stream, err := s.node.Logs.Read(ctx, connect.NewRequest(&pb.LogsRequest{Kind: string(key.Kind), Name: key.Name, Follow: true, Tail: shownLines}))
		if err != nil {
			return err
		}
		defer stream.Close()
		before := last
		for stream.Receive() {
			up()
			m := stream.Msg()
			at := m.Time.AsTime()
			if !at.After(before) {
				continue
			}
			last = at
			if err := f.send(ctx, "line", logLine{at.UnixMilli(), m.Stream, printable.Text(m.Text)}); err != nil {
				return err
			}
		}
		return stream.Err()
	}
}
