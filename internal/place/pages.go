package place

import "context"

// claimPages takes it that a placement from before uses the huge pages that it
// was given, so that these are not counted twice.
func (s *State) claimPages(p *Placement) {
	if s.known[p.Request.Name] {
		return
	}
	for _, m := range p.Memory {
		n := s.nodeAt[m.Node]
		claimed := min(m.Bytes, s.pagesInUse[n][m.PageSize])
		if m.PageSize != 0 && claimed > 0 {
			s.pagesInUse[n][m.PageSize] -= claimed
			s.huge[n][m.PageSize] += claimed
		}
	}
}

// usedPages are the bytes of huge pages that are in use and that no placement
// accounts for.
func (s *State) usedPages(size int64) (bytes int64) {
	for n := range s.pagesInUse {
		bytes += s.pagesInUse[n][size]
	}
	return bytes
}

// PlaceRunning is Place for what runs on the machine already and of which only
// the request is known, as where a person previews a node: huge pages that are
// in use are taken to be its own.
func (s *State) PlaceRunning(ctx context.Context, req Request) (Placement, error) {
	before := s.Clone()
	for _, h := range req.HugePages {
		left := h.Bytes
		for n := range s.pagesInUse {
			claimed := max(min(left, s.pagesInUse[n][h.Size]), 0)
			if claimed > 0 {
				s.pagesInUse[n][h.Size] -= claimed
				s.huge[n][h.Size] += claimed
				left -= claimed
			}
		}
	}
	p, err := s.Place(ctx, req)
	if err != nil {
		s.huge, s.pagesInUse = before.huge, before.pagesInUse
	}
	return p, err
}
