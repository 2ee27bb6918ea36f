package fastpath

import (
	"bytes"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"
)

// head is that of a request, with all that is needed of it.
type head struct {
	raw    []byte // as it came, with the empty line
	path   string
	host   string
	header http.Header
	length int64
}

// keepHead bounds the heads that are kept: connections are many.
const keepHead = 1 << 10

// parse reads the head with which p begins and returns its size. It is not ok
// where p does not begin with a whole one, or with one that is in any way out of
// the ordinary: net/http knows about those.
func (h *head) parse(p []byte) (size int, ok bool) {
	if n := len(h.raw); n > 0 && len(p) >= n && string(p[:n]) == string(h.raw) {
		return n, true
	}
	end := bytes.Index(p, []byte("\r\n\r\n"))
	if end < 0 {
		return 0, false
	}
	size = end + len("\r\n\r\n")
	line, lines, _ := bytes.Cut(p[:end], []byte("\r\n"))
	line, post := bytes.CutPrefix(line, []byte("POST "))
	line, http11 := bytes.CutSuffix(line, []byte(" HTTP/1.1"))
	if !post || !http11 || !plain(line) {
		return 0, false
	}
	n := head{raw: h.raw[:0], path: string(line), length: -1, header: make(http.Header, 8)}
	if !n.fields(lines) || n.host == "" || n.length < 0 {
		return 0, false
	}
	*h = n
	if size <= keepHead {
		h.raw = append(h.raw, p[:size]...)
	} else {
		h.raw = nil
	}
	return size, true
}

// plain reports whether a path is that of an inference, and has nothing that would
// have to be understood.
func plain(path []byte) bool {
	if !bytes.HasPrefix(path, []byte("/v2/models/")) || !bytes.HasSuffix(path, []byte("/infer")) || bytes.Contains(path, []byte("/.")) || bytes.Contains(path, []byte("//")) {
		return false
	}
	for _, c := range path {
		if (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z') && !strings.ContainsRune("/._-", rune(c)) {
			return false
		}
	}
	return true
}

// requestSize returns the bytes of the request with which p begins, of any method
// and path. It is -1 where p does not begin with a whole head, or with one about whose
// request net/http could have another opinion.
func requestSize(p []byte) int64 {
	end := bytes.Index(p, []byte("\r\n\r\n"))
	if end < 0 {
		return -1
	}
	line, lines, _ := bytes.Cut(p[:end], []byte("\r\n"))
	n := head{length: -1, header: make(http.Header, 8)}
	if !bytes.HasSuffix(line, []byte(" HTTP/1.1")) || !printable(line) || !n.fields(lines) {
		return -1
	}
	return int64(end+len("\r\n\r\n")) + max(n.length, 0)
}

// printable reports whether a line has nothing but printable ASCII and tabs.
func printable(line []byte) bool {
	for _, c := range line {
		if c < ' ' && c != '\t' || c >= 0x7f {
			return false
		}
	}
	return true
}

// fields takes the lines of the header.
func (h *head) fields(lines []byte) bool {
	for line := []byte(nil); len(lines) > 0; {
		line, lines, _ = bytes.Cut(lines, []byte("\r\n"))
		if !h.field(line) {
			return false
		}
	}
	return true
}

// field takes one line of the header.
func (h *head) field(line []byte) bool {
	colon := bytes.IndexByte(line, ':')
	if colon <= 0 {
		return false
	}
	for _, c := range line[:colon] {
		if (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z') && c != '-' && c != '_' {
			return false
		}
	}
	if !printable(line[colon+1:]) {
		return false
	}
	value := string(bytes.Trim(line[colon+1:], " \t"))
	switch name := textproto.CanonicalMIMEHeaderKey(string(line[:colon])); name {
	case "Transfer-Encoding", "Expect", "Upgrade", "Trailer", "Te", "Http2-Settings":
		return false
	case "Connection":
		return strings.EqualFold(value, "keep-alive")
	case "Host":
		if h.host != "" || strings.ContainsAny(value, "/\\@?# \t,") {
			return false
		}
		h.host = value
		return value != ""
	case "Content-Length":
		n, err := strconv.ParseUint(value, 10, 63)
		if err != nil || h.length >= 0 {
			return false
		}
		h.length = int64(n)
		h.header[name] = []string{value}
		return true
	default:
		h.header[name] = append(h.header[name], value)
		return true
	}
}
