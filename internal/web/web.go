package web

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"oscine.dev/oscine/internal/client"
	"oscine.dev/oscine/internal/object"
)

//go:embed page
var page embed.FS

// Server serves the page of one node.
type Server struct {
	node     *client.Client
	kinds    object.Table
	listener net.Listener
	token    string
	cookie   string // its name

	mu   sync.Mutex
	maps map[string][]byte // SVG by its version, the newest few
	kept []string          // versions in the order in which they were drawn
}

// Listen returns a server of the node's page at a port of 127.0.0.1, 0 for any
// free one.
func Listen(node *client.Client, kinds object.Table, port int) (*Server, error) {
	l, err := net.Listen("tcp", netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(port)).String())
	if err != nil {
		return nil, fmt.Errorf("listen for the web page: %w", err)
	}
	at, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		return nil, errors.Join(fmt.Errorf("listen for the web page: %v is no TCP address", l.Addr()), l.Close())
	}
	return &Server{
		node: node, kinds: kinds, listener: l, token: rand.Text(),
		// Cookies don't tell ports apart: the name does.
		cookie: fmt.Sprintf("oscine-%d", at.Port),
		maps:   map[string][]byte{},
	}, nil
}

// URL is where the page is, with the token that opens it.
func (s *Server) URL() string {
	return "http://" + s.listener.Addr().String() + "/?token=" + s.token
}

// Serve answers until ctx ends.
func (s *Server) Serve(ctx context.Context) error {
	server := &http.Server{
		Handler:           s.Handler(),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    64 << 10,
		BaseContext:       func(net.Listener) context.Context { return ctx }, // ends the streams
	}
	ended := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer ended()
	if err := server.Serve(s.listener); ctx.Err() == nil && !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve the web page: %w", err)
	}
	return nil
}

// Handler returns the page and its API, behind the checks that every request
// has to pass.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	files, err := fs.Sub(page, "page")
	if err != nil {
		panic(err) // the folder is compiled in
	}
	mux.Handle("GET /", http.FileServerFS(files))
	mux.HandleFunc("GET /map.svg", s.serveMap)
	mux.HandleFunc("GET /live", s.live)
	mux.HandleFunc("GET /object", s.object)
	return s.guarded(mux)
}

const policy = "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'"

// guarded lets in requests that come from the page or bring the token.
func (s *Server) guarded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		// A name of somebody else's that leads to 127.0.0.1 makes their page and
		// this server one origin for the browser (DNS rebinding).
		if !loopback(r.Host) {
			http.Error(w, "this page answers on the loopback address only: open the address that oscine web printed", http.StatusMisdirectedRequest)
			return
		}
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			h.Set("Allow", "GET, HEAD")
			http.Error(w, "this page only reads", http.StatusMethodNotAllowed)
			return
		}
		if token := r.URL.Query().Get("token"); s.isToken(token) {
			// No redirect follows: a browser that came from elsewhere would not send
			// a strict cookie along. The page drops the token from its address.
			http.SetCookie(w, &http.Cookie{Name: s.cookie, Value: s.token, Path: "/", HttpOnly: true, SameSite: http.SameSiteStrictMode})
		} else if !s.hasCookie(r) {
			http.Error(w, "no valid token: open the address that oscine web printed", http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (s *Server) isToken(given string) bool {
	return subtle.ConstantTimeCompare([]byte(given), []byte(s.token)) == 1
}

// hasCookie also refuses what another page of this computer asked for: for
// cookies every port is the same site.
func (s *Server) hasCookie(r *http.Request) bool {
	if from := r.Header.Get("Sec-Fetch-Site"); from != "" && from != "same-origin" && from != "none" {
		return false
	}
	cookie, err := r.Cookie(s.cookie)
	return err == nil && s.isToken(cookie.Value)
}

// loopback reports whether a Host header names this computer itself; the port
// may be another where somebody forwards it.
func loopback(host string) bool {
	name, _, err := net.SplitHostPort(host)
	if err != nil {
		name = strings.Trim(host, "[]")
	}
	if strings.EqualFold(name, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(name)
	return err == nil && ip.IsLoopback()
}
