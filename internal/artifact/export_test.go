package artifact

import "time"

// SetStall has downloads count as cut soon.
func SetStall(s *Store) { s.stall = 200 * time.Millisecond }
