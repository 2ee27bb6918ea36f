package journal

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// DefaultBytes is the bound of a journal whose owner names none.
const DefaultBytes = 8 << 20

// minBytes keeps a rotation from happening at nearly every line.
const minBytes = 128 << 10

// older names the file that holds the lines before those of path.
func older(path string) string { return path + ".1" }

// Writer adds lines to a journal. There is one Writer per journal at a time;
// it is safe for concurrent use.
type Writer struct {
	path string
	half int64 // size at which the current file becomes the older one

	mu     sync.Mutex
	file   *os.File // nil while it cannot be opened
	size   int64
	closed bool
	failed time.Time // when it could not be opened last
	buf    []byte
}

// Open opens the journal at path for writing and creates it, with its folder,
// if absent. Both files together stay below bytes; 0 means DefaultBytes, and
// less than 128 KiB is raised to that. A journal that cannot be opened, on a disk
// without room, stops nobody: Append says why and tries again.
func Open(path string, bytes int64) *Writer {
	if bytes == 0 {
		bytes = DefaultBytes
	}
	w := &Writer{path: path, half: max(bytes, minBytes) / 2}
	_ = w.open() // Append says why
	return w
}

// openAgain is how long after a failure the journal is opened again.
const openAgain = time.Second

// ready opens the journal unless it is open.
func (w *Writer) ready() error {
	switch {
	case w.closed:
		return os.ErrClosed
	case w.file != nil:
		return nil
	case time.Since(w.failed) < openAgain:
		return fmt.Errorf("the journal %s could not be opened a moment ago", w.path)
	}
	return w.open()
}

func (w *Writer) open() error {
	file, size, err := openFile(w.path)
	if err != nil {
		w.failed = time.Now()
		return fmt.Errorf("open journal: %w", err)
	}
	w.file, w.size = file, size
	return nil
}

func openFile(path string) (*os.File, int64, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, 0, err
	}
	file, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return nil, 0, err
	}
	info, err := file.Stat()
	if err != nil {
		file.Close()
		return nil, 0, err
	}
	size := info.Size()
	if !endsLine(file, size) {
		// The last writer died within a record: end it, so that only that one is lost.
		n, _ := file.Write([]byte{'\n'})
		size += int64(n)
	}
	return file, size, nil
}

func endsLine(file *os.File, size int64) bool {
	if size == 0 {
		return true
	}
	var last [1]byte
	_, err := file.ReadAt(last[:], size-1)
	return err == nil && last[0] == '\n'
}

// Append adds a line. A text longer than MaxText or with newlines inside
// becomes several lines.
func (w *Writer) Append(line Line) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for {
		part, rest, more := line, "", false
		if before, after, ok := strings.Cut(line.Text, "\n"); ok && len(before) <= MaxText {
			part.Text, rest, more = before, after, true
		} else if len(line.Text) > MaxText {
			part.Text, rest, more = line.Text[:MaxText], line.Text[MaxText:], true
			part.Partial = true
		}
		if err := w.append(part); err != nil {
			return err
		}
		if !more {
			return nil
		}
		line.Text = rest
	}
}

// Begin marks that a program starts, whose lines follow; see Query.Previous.
func (w *Writer) Begin(now time.Time) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.append(Line{Time: now, Stream: Stdout, Begins: true})
}

func (w *Writer) append(line Line) error {
	if err := w.ready(); err != nil {
		return err
	}
	w.buf = line.appendTo(w.buf[:0])
	if w.size+int64(len(w.buf)) > w.half {
		if err := w.rotate(); err != nil {
			return err
		}
	}
	n, err := w.file.Write(w.buf)
	w.size += int64(n)
	if err == nil {
		return nil
	}
	if !errors.Is(err, syscall.ENOSPC) {
		return fmt.Errorf("write journal: %w", err)
	}
	// Give the older half back and try once more.
	os.Remove(older(w.path))
	n, err = w.file.Write(append([]byte{'\n'}, w.buf...))
	w.size += int64(n)
	return err
}

// rotate makes the current file the older one. A rename is atomic: a reader,
// and a machine that stops here, find either state. On a disk without an inode
// for a new file the current one goes on, empty.
func (w *Writer) rotate() error {
	if err := os.Rename(w.path, older(w.path)); err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("rotate journal: %w", err)
	}
	file, size, err := openFile(w.path)
	if err == nil {
		w.file.Close()
		w.file, w.size = file, size
		return nil
	}
	if err := errors.Join(os.Rename(older(w.path), w.path), w.file.Truncate(0)); err != nil {
		return fmt.Errorf("rotate journal: %w", err)
	}
	w.size = 0
	return nil
}

// Release lets go of the file until the next line comes: its file system is to be
// unmounted.
func (w *Writer) Release() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.file == nil {
		return nil
	}
	err := w.file.Close()
	w.file = nil
	return err
}

// Close closes the journal.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	if w.file == nil {
		return nil
	}
	err := w.file.Close()
	w.file = nil
	return err
}

// Copy adds what r says, line by line, until r ends. It never keeps r's writer
// waiting for the disk's sake: a line that cannot be written is dropped.
func (w *Writer) Copy(stream Stream, r io.Reader) error {
	buf := make([]byte, MaxText)
	fill := 0
	for {
		n, err := r.Read(buf[fill:])
		fill += n
		used := w.split(stream, buf[:fill])
		fill = copy(buf, buf[used:fill])
		if fill == len(buf) {
			w.Append(Line{Time: time.Now(), Stream: stream, Partial: true, Text: string(buf)})
			fill = 0
		}
		if err != nil {
			if fill > 0 {
				w.Append(Line{Time: time.Now(), Stream: stream, Text: string(buf[:fill])})
			}
			if err == io.EOF {
				return nil
			}
			return err
		}
	}
}

// split adds the whole lines at the start of b and returns how many bytes
// these were.
func (w *Writer) split(stream Stream, b []byte) int {
	used, now := 0, time.Now()
	for {
		i := bytes.IndexByte(b[used:], '\n')
		if i < 0 {
			return used
		}
		w.Append(Line{Time: now, Stream: stream, Text: string(b[used : used+i])})
		used += i + 1
	}
}

// Remove deletes the journal at path.
func Remove(path string) error {
	for _, name := range []string{path, older(path)} {
		if err := os.Remove(name); err != nil && !os.IsNotExist(err) {
			return fmt.Errorf("remove journal: %w", err)
		}
	}
	return nil
}
