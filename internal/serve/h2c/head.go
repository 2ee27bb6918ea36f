package h2c

import (
	"context"
	"errors"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// head is that of a request. It does not change: requests get copies.
type head struct {
	fields []hpack.HeaderField
	method string
	uri    string
	url    *url.URL
	host   string
	header http.Header
	length int64 // of the body; -1: not known
	large  bool  // has more than the server takes: nothing but the method is known
}

// same reports whether a request has this head too.
func (h *head) same(f *http2.MetaHeadersFrame) bool {
	return !f.Truncated && !h.large && slices.Equal(h.fields, f.Fields)
}

var errMalformed = errors.New("malformed request")

// newHead reads a head, of one that is too large only the method. The framer has checked
// names, values and the order of pseudo-header fields.
func newHead(f *http2.MetaHeadersFrame) (*head, error) {
	if f.Truncated {
		return &head{method: f.PseudoValue("method"), url: &url.URL{Path: "/"}, header: http.Header{}, length: -1, large: true}, nil
	}
	h := &head{fields: f.Fields, method: f.PseudoValue("method"), uri: f.PseudoValue("path"), host: f.PseudoValue("authority"), header: make(http.Header, len(f.Fields)), length: -1}
	scheme := f.PseudoValue("scheme")
	if h.method == "" || h.method == http.MethodConnect || h.uri == "" || scheme != "http" && scheme != "https" {
		return nil, errMalformed
	}
	for _, field := range f.RegularFields() {
		switch field.Name {
		case "connection", "proxy-connection", "transfer-encoding", "upgrade", "keep-alive":
			return nil, errMalformed // RFC 9113, section 8.2.2
		case "te":
			if field.Value != "trailers" {
				return nil, errMalformed
			}
		case "content-length":
			n, err := strconv.ParseUint(field.Value, 10, 63)
			if err != nil || h.length >= 0 && h.length != int64(n) {
				return nil, errMalformed
			}
			h.length = int64(n)
		}
		name := textproto.CanonicalMIMEHeaderKey(field.Name)
		h.header[name] = append(h.header[name], field.Value)
	}
	if cookies := h.header["Cookie"]; len(cookies) > 1 {
		h.header["Cookie"] = []string{strings.Join(cookies, "; ")} // RFC 9113, section 8.2.3
	}
	if h.host == "" {
		h.host = h.header.Get("Host")
	}
	delete(h.header, "Host")
	var err error
	if h.url, err = url.ParseRequestURI(h.uri); err != nil {
		return nil, errMalformed
	}
	return h, nil
}

// request is what the handler gets.
func (h *head) request(ctx context.Context, st *stream) *http.Request {
	url, length := *h.url, h.length
	r := (&http.Request{
		Method: h.method, URL: &url, Proto: "HTTP/2.0", ProtoMajor: 2, Header: h.header.Clone(), Host: h.host,
		RemoteAddr: st.session.remote, RequestURI: h.uri, Body: st, ContentLength: length,
	}).WithContext(ctx)
	if st.over {
		r.Body, r.ContentLength = http.NoBody, 0
	}
	return r
}
