package h2c

import (
	"errors"
	"math"
	"os"
	"time"

	"golang.org/x/net/http2"
)

// receive reads a frame and does what it says. Its error ends the reading.
func (s *Session) receive(greeted bool) error {
	if err := s.await(); err != nil {
		return err
	}
	frame, err := s.frames.ReadFrame()
	if err != nil {
		var wrong http2.StreamError
		switch {
		case errors.As(err, &wrong):
			return s.refuse(wrong.StreamID, wrong.Code)
		case errors.Is(err, http2.ErrFrameTooLarge):
			return http2.ConnectionError(http2.ErrCodeFrameSize)
		}
		return err
	}
	if _, ok := frame.(*http2.SettingsFrame); !greeted && !ok {
		return http2.ConnectionError(http2.ErrCodeProtocol)
	}
	switch f := frame.(type) {
	case *http2.SettingsFrame:
		return s.settings(f)
	case *http2.MetaHeadersFrame:
		return s.headers(f)
	case *http2.DataFrame:
		return s.data(f)
	case *http2.WindowUpdateFrame:
		return s.windowUpdate(f)
	case *http2.RSTStreamFrame:
		return s.rst(f)
	case *http2.PingFrame:
		if f.IsAck() {
			return nil
		}
		return s.control(func(out *http2.Framer) error { return out.WritePing(true, f.Data) })
	case *http2.GoAwayFrame:
		s.mu.Lock()
		defer s.mu.Unlock()
		s.leaving = true
		s.stopReading()
		return nil // what it has asked for it may still wait for, and give windows for
	case *http2.PushPromiseFrame:
		return http2.ConnectionError(http2.ErrCodeProtocol)
	}
	return nil // priorities, and frames that are not known
}

// await waits for the first byte of a frame, for as long as the connection may be
// idle or has requests at work.
func (s *Session) await() error {
	for {
		s.renew()
		_, err := s.in.Peek(1)
		if err == nil {
			s.renew() // the rest of the frame has the same time
			return nil
		}
		s.mu.Lock()
		busy, leaving := len(s.streams) > 0, s.leaving
		s.mu.Unlock()
		switch {
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return err
		case !busy && leaving:
			return errDone
		case !busy:
			if err := s.goAway(http2.ErrCodeNo); err != nil {
				return err
			}
		}
		s.renewed = time.Time{}
	}
}

// renew gives the client time for the next frame.
func (s *Session) renew() {
	now := time.Now()
	if s.idle <= 0 && !s.renewed.IsZero() || now.Sub(s.renewed) < renewal {
		return
	}
	s.renewed = now
	until := time.Time{}
	if s.idle > 0 {
		until = now.Add(s.idle)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = s.conn.SetReadDeadline(until)
	s.stopReading()
}

func (s *Session) settings(f *http2.SettingsFrame) error {
	if f.IsAck() {
		return nil
	}
	table := uint32(tableBytes)
	resized := false
	s.mu.Lock()
	err := f.ForeachSetting(func(set http2.Setting) error {
		if err := set.Valid(); err != nil {
			return err
		}
		switch set.ID {
		case http2.SettingInitialWindowSize:
			more := int64(set.Val) - s.initial
			s.initial = int64(set.Val)
			for _, st := range s.streams {
				if st.window += more; st.window > math.MaxInt32 {
					return http2.ConnectionError(http2.ErrCodeFlowControl)
				}
				st.changed.Broadcast()
			}
		case http2.SettingMaxFrameSize:
			s.frame = min(int64(set.Val), maxFrame)
		case http2.SettingHeaderTableSize:
			table, resized = min(set.Val, tableBytes), true
		}
		return nil
	})
	s.mu.Unlock()
	if err != nil {
		return err
	}
	return s.control(func(out *http2.Framer) error {
		if resized {
			s.encoder.SetMaxDynamicTableSize(table)
		}
		return out.WriteSettingsAck()
	})
}

// data gives a stream what came of its body.
func (s *Session) data(f *http2.DataFrame) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.StreamID > s.last {
		return http2.ConnectionError(http2.ErrCodeProtocol)
	}
	size := int64(f.Length)
	if s.received -= size; s.received < 0 {
		return http2.ConnectionError(http2.ErrCodeFlowControl)
	}
	st := s.streams[f.StreamID]
	if st == nil || st.err != nil || st.over {
		closed := st != nil && st.over && st.err == nil
		s.mu.Unlock()
		defer s.mu.Lock()
		if closed {
			return errors.Join(s.refuse(f.StreamID, http2.ErrCodeStreamClosed), s.giveBack(nil, size))
		}
		return s.giveBack(nil, size) // it was answered or reset meanwhile
	}
	data := f.Data()
	padding := size - int64(len(data))
	if st.received -= size; st.received < 0 {
		s.mu.Unlock()
		defer s.mu.Lock()
		return errors.Join(s.refuse(f.StreamID, http2.ErrCodeFlowControl), s.giveBack(nil, size))
	}
	st.body = append(st.body, data...)
	st.came += int64(len(data))
	st.over = f.StreamEnded()
	if length := st.head.length; length >= 0 && (st.came > length || st.over && st.came < length) {
		s.mu.Unlock()
		defer s.mu.Lock()
		return s.refuse(f.StreamID, http2.ErrCodeProtocol)
	}
	st.changed.Broadcast()
	if padding > 0 {
		s.mu.Unlock()
		defer s.mu.Lock()
		return s.giveBack(st, padding)
	}
	return nil
}

// giveBack lets the client send as many bytes more: of a stream, unless it sends no
// more, and of all. It tells only when it is worth a frame.
func (s *Session) giveBack(st *stream, n int64) error {
	var own int64
	s.mu.Lock()
	s.owed += n
	all := s.owed
	if all < receiveWindow/4 {
		all = 0
	}
	s.owed -= all
	s.received += all
	if st != nil && !st.over && st.err == nil {
		if st.owed += n; st.owed >= receiveWindow/4 {
			own, st.owed = st.owed, 0
			st.received += own
		}
	}
	s.mu.Unlock()
	if all == 0 && own == 0 {
		return nil
	}
	return s.control(func(out *http2.Framer) (err error) {
		if all > 0 {
			err = out.WriteWindowUpdate(0, uint32(all))
		}
		if own > 0 && err == nil {
			err = out.WriteWindowUpdate(st.id, uint32(own))
		}
		return err
	})
}

func (s *Session) windowUpdate(f *http2.WindowUpdateFrame) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.StreamID == 0 {
		if s.window += int64(f.Increment); s.window > math.MaxInt32 {
			return http2.ConnectionError(http2.ErrCodeFlowControl)
		}
		for _, st := range s.streams {
			st.changed.Broadcast()
		}
		return nil
	}
	if f.StreamID > s.last {
		return http2.ConnectionError(http2.ErrCodeProtocol)
	}
	st := s.streams[f.StreamID]
	if st == nil {
		return nil
	}
	if st.window += int64(f.Increment); st.window > math.MaxInt32 {
		s.mu.Unlock()
		defer s.mu.Lock()
		return s.refuse(f.StreamID, http2.ErrCodeFlowControl)
	}
	st.changed.Broadcast()
	return nil
}

func (s *Session) rst(f *http2.RSTStreamFrame) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.StreamID > s.last {
		return http2.ConnectionError(http2.ErrCodeProtocol)
	}
	if st := s.streams[f.StreamID]; st != nil {
		st.reset(http2.StreamError{StreamID: f.StreamID, Code: f.ErrCode})
	}
	return nil
}

// refuse ends a stream on which the client does something wrong, or which is one too
// many.
func (s *Session) refuse(id uint32, code http2.ErrCode) error {
	s.mu.Lock()
	s.last = max(s.last, id)
	if st := s.streams[id]; st != nil {
		st.reset(http2.StreamError{StreamID: id, Code: code})
	}
	s.mu.Unlock()
	return s.control(func(out *http2.Framer) error { return out.WriteRSTStream(id, code) })
}
