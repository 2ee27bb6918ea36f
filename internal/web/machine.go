package web

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"math"
	"net/http"
	"slices"

	"connectrpc.com/connect"

	pb "oscine.dev/oscine/internal/api/oscinepb"
	"oscine.dev/oscine/internal/client"
	"oscine.dev/oscine/internal/hardware"
	"oscine.dev/oscine/internal/hardware/render"
	"oscine.dev/oscine/internal/printable"
)

// drawing tells of a new map of the machine.
type drawing struct {
	Version string `json:"version"`
	Title   string `json:"title"`
}

// load is the machine's load, in the order in which the page shows it.
type load struct {
	CPUs    []cpuLoad    `json:"cpus"`
	Nodes   []nodeLoad   `json:"nodes"`
	Devices []deviceLoad `json:"devices"`
}

type cpuLoad struct {
	ID   int     `json:"id"`
	Busy float64 `json:"busy"` // from 0 to 1
}

type nodeLoad struct {
	ID    int    `json:"id"`
	Used  uint64 `json:"used"` // bytes
	Total uint64 `json:"total"`
	Text  string `json:"text"`
}

type deviceLoad struct {
	ID      string  `json:"id"`
	Model   string  `json:"model"`
	Busy    float64 `json:"busy"` // from 0 to 1; -1 unknown
	Used    uint64  `json:"used"` // bytes; 0 unknown
	Total   uint64  `json:"total"`
	Celsius float64 `json:"celsius"` // 0 unknown
	Watts   float64 `json:"watts"`   // 0 unknown
	Health  string  `json:"health"`
	Why     string  `json:"why"` // it is not healthy
}

// machine tells the map, now and when it changes, and the load.
func (s *Server) machine(ctx context.Context, f *feed, up func()) error {
	stream, err := s.node.Hardware.Watch(ctx, connect.NewRequest(&pb.WatchHardwareRequest{LoadSeconds: loadInterval.Seconds()}))
	if err != nil {
		return err
	}
	defer stream.Close()
	var m *hardware.Machine
	for stream.Receive() {
		news, err := client.HardwareNews(stream.Msg())
		if err != nil {
			return err
		}
		up()
		if news.Machine != nil {
			m = news.Machine
			drawn, err := s.draw(m)
			if err != nil {
				return err
			}
			if err := f.send(ctx, "map", drawn); err != nil {
				return err
			}
		}
		if news.Load != nil && m != nil {
			if err := f.send(ctx, "load", loadOf(m, news.Load)); err != nil {
				return err
			}
		}
	}
	return ended(stream.Err())
}

func loadOf(m *hardware.Machine, l *hardware.Load) load {
	out := load{CPUs: []cpuLoad{}, Nodes: []nodeLoad{}, Devices: []deviceLoad{}}
	for _, id := range m.Online.IDs() {
		if busy, ok := l.CPUs[id]; ok {
			out.CPUs = append(out.CPUs, cpuLoad{id, finite(busy)})
		}
	}
	for _, n := range m.Nodes {
		if used, ok := l.Used[n.ID]; ok && n.Bytes > 0 {
			out.Nodes = append(out.Nodes, nodeLoad{n.ID, uint64(used), uint64(n.Bytes), used.String() + " of " + n.Bytes.String()})
		}
	}
	for i := range m.Accelerators {
		a := &m.Accelerators[i]
		if a.Kind == "switch" && a.Health.State == "ok" {
			continue // it has nothing to tell
		}
		d := deviceLoad{
			ID: printable.Text(a.ID), Model: printable.Text(a.Vendor + " " + a.Model), Busy: -1, Total: uint64(a.Memory), Health: printable.Text(a.Health.State),
		}
		if reasons := slices.Concat(a.Health.Reasons, a.Missing); len(reasons) > 0 {
			d.Why = printable.Text(reasons[0])
		}
		if now, ok := l.Devices[a.ID]; ok {
			d.Busy, d.Used, d.Celsius, d.Watts = finite(now.Busy), uint64(now.Used), finite(now.Celsius), finite(now.Watts)
		}
		out.Devices = append(out.Devices, d)
	}
	return out
}

// finite is a figure that JSON can hold: of others nothing is known.
func finite(v float64) float64 {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return -1
	}
	return v
}

// keptMaps bounds the drawings that are kept: a page asks for one at once.
const keptMaps = 8

// draw keeps the drawing of a machine under a version of its own.
func (s *Server) draw(m *hardware.Machine) (drawing, error) {
	var svg bytes.Buffer
	if err := render.SVG(&svg, m); err != nil {
		return drawing{}, err
	}
	sum := sha256.Sum256(svg.Bytes())
	version := hex.EncodeToString(sum[:8])
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.maps[version] == nil {
		s.maps[version] = svg.Bytes()
		s.kept = append(s.kept, version)
		if len(s.kept) > keptMaps {
			delete(s.maps, s.kept[0])
			s.kept = s.kept[1:]
		}
	}
	return drawing{version, printable.Text(render.Title(m))}, nil
}

// serveMap serves a drawing. The page shows it as a picture, in which a
// browser runs nothing.
func (s *Server) serveMap(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	svg := s.maps[r.URL.Query().Get("version")]
	s.mu.Unlock()
	if svg == nil {
		http.Error(w, "no such map: load the page again", http.StatusNotFound)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "image/svg+xml")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'") // the drawing brings its own style
	_, _ = w.Write(svg)
}
