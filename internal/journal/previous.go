package journal

import (
	"context"
	"errors"
	"time"
)

// ErrNoPrevious is returned where a journal has nothing of an earlier run.
var ErrNoPrevious = errors.New("no earlier run is in the log")

// span is what one program wrote: the lines from one mark to the next. Marks
// are known by their times, so that a rotation between two looks does no harm.
type span struct {
	from, until time.Time
	open, over  bool
}

// holds reports whether a record is within the span; records come in order.
func (s *span) holds(line Line) bool {
	if line.Begins {
		s.over = s.over || line.Time.Equal(s.until)
		s.open = line.Time.Equal(s.from)
	}
	return s.open && !s.over
}

// previous finds the run before the last one in the journal. The first run may
// have lost its mark to a rotation: it begins with the journal then.
func previous(ctx context.Context, path string) (*span, error) {
	var marks [2]time.Time
	count, lead := 0, false
	look := &reader{path: path, each: func(line Line) error {
		switch {
		case line.Begins:
			marks = [2]time.Time{marks[1], line.Time}
			count++
		case count == 0:
			lead = true
		}
		return nil
	}, marks: true}
	defer look.close()
	if err := look.history(ctx); err != nil {
		return nil, err
	}
	if count == 0 || (count == 1 && !lead) {
		return nil, ErrNoPrevious
	}
	return &span{from: marks[0], until: marks[1], open: count == 1}, nil
}
