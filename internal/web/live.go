package web

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"connectrpc.com/connect"

	pb "oscine.dev/oscine/internal/api/oscinepb"
	"oscine.dev/oscine/internal/client"
	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/printable"
)

const (
	infoInterval    = 5 * time.Second
	objectsInterval = 3 * time.Second // counters change without a word of Watch
	latencyInterval = 5 * time.Second
	loadInterval    = time.Second
	shownEvents     = 300
)

var errEnded = errors.New("the node ended the stream")

// live streams everything that the page's front shows.
func (s *Server) live(w http.ResponseWriter, r *http.Request) {
	stream(w, r,
		source{"node", s.info},
		source{"machine", s.machine},
		source{"objects", s.list},
		source{"changes", s.changes},
		source{"events", func(ctx context.Context, f *feed, up func()) error {
			return s.events(ctx, f, up, &pb.EventsRequest{Follow: true, Tail: shownEvents})
		}},
		source{"latency", s.latency},
	)
}

// nodeInfo is the head of the page.
type nodeInfo struct {
	Name         string   `json:"name"`
	Version      string   `json:"version"`
	Kernel       string   `json:"kernel"`
	Architecture string   `json:"architecture"`
	Mode         string   `json:"mode"`
	Uptime       float64  `json:"uptime"` // seconds
	Missing      []string `json:"missing"`
}

func (s *Server) info(ctx context.Context, f *feed, up func()) error {
	return every(ctx, infoInterval, func() error {
		resp, err := s.node.Node.Info(ctx, connect.NewRequest(&pb.InfoRequest{}))
		if err != nil {
			return err
		}
		up()
		m := resp.Msg
		return f.send(ctx, "node", nodeInfo{m.Name, m.Version, m.Kernel, m.Architecture, m.Mode, finite(m.UptimeSeconds), m.MissingGuarantees})
	})
}

// table is the objects of one kind.
type table struct {
	Kind    string   `json:"kind"`
	Title   string   `json:"title"`
	Columns []string `json:"columns"` // of the kind alone
	Rows    []row    `json:"rows"`
}

// row is one object as oscine get shows it.
type row struct {
	Kind      string   `json:"kind"`
	Name      string   `json:"name"`
	Phase     string   `json:"phase"`
	Placement string   `json:"placement"`
	CPUs      string   `json:"cpus"`
	Restarts  int      `json:"restarts"`
	Created   int64    `json:"created"` // milliseconds since 1970; 0 unknown
	Cells     []string `json:"cells"`   // of the kind's own columns
	Message   string   `json:"message"`
}

// list tells all objects, with the counters in their status, at each interval.
func (s *Server) list(ctx context.Context, f *feed, up func()) error {
	return every(ctx, objectsInterval, func() error {
		resp, err := s.node.Objects.Get(ctx, connect.NewRequest(&pb.GetRequest{}))
		if err != nil {
			return err
		}
		var tables []table
		for _, kind := range s.kinds.Stored() {
			t := table{Kind: string(kind.Kind), Title: kind.Word() + "s", Columns: []string{}, Rows: []row{}}
			for _, c := range kind.Columns {
				t.Columns = append(t.Columns, c.Title)
			}
			for _, o := range resp.Msg.Objects {
				if o.Kind != t.Kind {
					continue
				}
				r, err := s.row(o)
				if err != nil {
					return err
				}
				t.Rows = append(t.Rows, r)
			}
			tables = append(tables, t)
		}
		up()
		return f.send(ctx, "objects", tables)
	})
}

// changes tells each change of an object at once.
func (s *Server) changes(ctx context.Context, f *feed, up func()) error {
	stream, err := s.node.Objects.Watch(ctx, connect.NewRequest(&pb.GetRequest{}))
	if err != nil {
		return err
	}
	defer stream.Close()
	for stream.Receive() {
		up()
		m := stream.Msg()
		if m.Event == "deleted" {
			err = f.send(ctx, "deleted", row{Kind: m.Object.GetKind(), Name: m.Object.GetName()})
		} else {
			var r row
			if r, err = s.row(m.Object); err == nil {
				err = f.send(ctx, "object", r)
			}
		}
		if err != nil {
			return err
		}
	}
	return ended(stream.Err())
}

func (s *Server) row(o *pb.Object) (row, error) {
	state, err := client.State(s.kinds, o)
	if err != nil {
		return row{}, err
	}
	if state.Status == nil {
		state.Status = &object.Observed{}
	}
	st := state.Status.Common()
	r := row{
		Kind: string(state.Kind), Name: printable.Text(state.Name), Phase: printable.Text(string(st.Phase)), Placement: placement(st.Placement),
		CPUs: printable.Text(st.CPUs()), Restarts: st.Restarts, Cells: []string{}, Message: printable.Text(st.Message),
	}
	if at := st.CreatedAt; at != nil {
		r.Created = at.UnixMilli()
	} else if at := st.StartedAt; at != nil {
		r.Created = at.UnixMilli()
	}
	if kind, ok := s.kinds.Find(state.Kind); ok {
		for _, c := range kind.Columns {
			r.Cells = append(r.Cells, printable.Text(c.Value(state.Status)))
		}
	}
	return r, nil
}

// placement says where an object is, beside its CPUs.
func placement(p *object.PlacementStatus) string {
	if p == nil {
		return ""
	}
	var parts []string
	if p.NUMANodes != "" {
		parts = append(parts, "node "+p.NUMANodes)
	}
	if p.Exclusive {
		parts = append(parts, "exclusive")
	}
	return printable.Text(strings.Join(append(parts, p.Devices...), ", "))
}

// event is one event of the node.
type event struct {
	First   int64  `json:"first"` // milliseconds since 1970
	Last    int64  `json:"last"`
	Count   int64  `json:"count"`
	Kind    string `json:"kind"`
	Name    string `json:"name"`
	Device  string `json:"device"`
	Warning bool   `json:"warning"`
	Reason  string `json:"reason"`
	Message string `json:"message"`
}

func (s *Server) events(ctx context.Context, f *feed, up func(), req *pb.EventsRequest) error {
	stream, err := s.node.Logs.Events(ctx, connect.NewRequest(req))
	if err != nil {
		return err
	}
	defer stream.Close()
	for stream.Receive() {
		up()
		e := stream.Msg()
		if err := f.send(ctx, "event", event{
			e.First.AsTime().UnixMilli(), e.Last.AsTime().UnixMilli(), e.Count, e.Kind, printable.Text(e.Name), printable.Text(e.Device),
			e.Warning, printable.Text(e.Reason), printable.Text(e.Message),
		}); err != nil {
			return err
		}
	}
	return ended(stream.Err())
}

// ended is why an endless stream ended.
func ended(err error) error {
	if err == nil {
		return errEnded
	}
	return err
}
