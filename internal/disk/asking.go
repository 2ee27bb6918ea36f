package disk

import "io"

// Asking reads what is to be stored as long as there is room, asked for now and
// then.
func Asking(r io.Reader, room func() error) io.Reader { return &asking{r: r, room: room} }

// AskingTo is Asking for what is written.
func AskingTo(w io.Writer, room func() error) io.Writer {
	return io.MultiWriter(&askingWriter{room: room}, w)
}

// AskingFor is Asking for a download that tells how many bytes are here: it passes
// that on now and then.
func AskingFor(room func() error, progress func(received int64)) func(int64) error {
	told := int64(0)
	return func(received int64) error {
		if received-told < tellEvery {
			return nil
		}
		told = received
		progress(received)
		return room()
	}
}

// tellEvery is after how many bytes progress is told.
const tellEvery = 1 << 20

type asking struct {
	r    io.Reader
	room func() error
	read int64 // since room was asked for
}

// askEvery is how many bytes are read before there has to be room again.
const askEvery = 16 << 20

func (a *asking) Read(p []byte) (int, error) {
	if a.read >= askEvery {
		a.read = 0
		if err := a.room(); err != nil {
			return 0, err
		}
	}
	n, err := a.r.Read(p)
	a.read += int64(n)
	return n, err
}

type askingWriter struct {
	room    func() error
	written int64 // since room was asked for
}

func (a *askingWriter) Write(p []byte) (int, error) {
	if a.written >= askEvery {
		a.written = 0
		if err := a.room(); err != nil {
			return 0, err
		}
	}
	a.written += int64(len(p))
	return len(p), nil
}
