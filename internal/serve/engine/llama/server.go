package llama

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"oscine.dev/oscine/internal/gguf"
	"oscine.dev/oscine/internal/printable"
)

// session is a model that llama-server has loaded.
type session struct {
	plan    gguf.Plan
	version string
	log     io.Writer
	dir     string // of the socket
	cmd     *exec.Cmd
	client  *http.Client
	ended   chan struct{} // closed when llama-server has ended
	dies    bool          // this program ends with llama-server
	cause   error         // why; read after ended
	life    context.Context
	stop    context.CancelFunc
	watch   watch
}

// healthPause is how often a server that loads is asked.
const healthPause = 20 * time.Millisecond

// start starts llama-server and waits until it has loaded the model. lost is
// called when it ends by itself later.
func start(e *Engine, args []string, lost func(error)) (*session, error) {
	dir, err := os.MkdirTemp(e.dir, "llama-")
	if err != nil {
		return nil, fmt.Errorf("make the folder of llama-server's socket: %w", err)
	}
	socket := filepath.Join(dir, "s.sock") // the ending makes it a Unix socket
	s := &session{log: os.Stderr, dir: dir, ended: make(chan struct{}), dies: lost != nil}
	s.life, s.stop = context.WithCancel(context.Background())
	s.client = &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
		// The server closes idle connections, just when one may be used again.
		DisableKeepAlives: true, DisableCompression: true,
	}}
	last := &tail{out: s.log}
	s.cmd = exec.Command(e.program, append(args, "--host", socket)...)
	s.cmd.Stdout, s.cmd.Stderr = last, last
	s.cmd.Env = environment(dir)
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start llama-server: %w", err), os.RemoveAll(dir))
	}
	go s.reap(lost)
	if err := s.awaitReady(); err != nil {
		return nil, errors.Join(last.explain(err), s.Close())
	}
	s.watch.begin(s)
	return s, nil
}

// environment is llama-server's: no setting of the server comes from this process's,
// only where the driver's libraries are.
func environment(home string) []string {
	env := []string{"PATH=/usr/bin:/bin", "HOME=" + home, "LLAMA_CACHE=" + home, "LC_ALL=C.UTF-8"}
	if libraries := os.Getenv("LD_LIBRARY_PATH"); libraries != "" {
		env = append(env, "LD_LIBRARY_PATH="+libraries)
	}
	return env
}

// reap waits for the end of llama-server.
func (s *session) reap(lost func(error)) {
	s.cause = s.cmd.Wait()
	if s.cause == nil {
		s.cause = errors.New("exit status 0")
	}
	close(s.ended)
	if ready := s.version != ""; ready && s.life.Err() == nil && lost != nil {
		lost(fmt.Errorf("llama-server ended: %w", s.cause))
	}
}

// awaitReady waits, as long as it takes, until the model is loaded.
func (s *session) awaitReady() error {
	for {
		if status, _, err := s.get("/health"); err == nil && status == http.StatusOK {
			break
		}
		select {
		case <-s.ended:
			return fmt.Errorf("llama-server does not load the model: %w", s.cause)
		case <-time.After(healthPause):
		}
	}
	_, body, err := s.get("/props")
	if err != nil {
		return fmt.Errorf("ask llama-server for its version: %w", err)
	}
	var props struct {
		Build string `json:"build_info"`
	}
	if err := json.Unmarshal(body, &props); err != nil || props.Build == "" {
		return fmt.Errorf("llama-server does not tell its version: %w", errors.Join(err, errors.New("no build_info")))
	}
	s.version = "llama.cpp " + printable.Text(props.Build)
	return nil
}

// maxAnswer bounds the server's answers about itself.
const maxAnswer = 1 << 20

// get asks the server about itself.
func (s *session) get(path string) (status int, body []byte, err error) {
	q, err := http.NewRequestWithContext(s.life, http.MethodGet, "http://llama"+path, nil)
	if err != nil {
		return 0, nil, err
	}
	r, err := s.client.Do(q)
	if err != nil {
		return 0, nil, err
	}
	defer r.Body.Close()
	body, err = io.ReadAll(io.LimitReader(r.Body, maxAnswer))
	return r.StatusCode, body, err
}

// Close implements worker.Session.
func (s *session) Close() error {
	s.stop()
	_ = s.cmd.Process.Kill() // or it has ended
	<-s.ended
	return os.RemoveAll(s.dir)
}

// tail passes what is written on and keeps the last of it.
type tail struct {
	out  io.Writer
	mu   sync.Mutex
	last []byte
}

// maxTail bounds what is kept.
const maxTail = 2 << 10

// Write implements io.Writer.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last = append(t.last, p...)
	if n := len(t.last) - maxTail; n > 0 {
		t.last = append(t.last[:0], t.last[n:]...)
	}
	return t.out.Write(p)
}

// explain adds the errors that the server wrote last to its end.
func (t *tail) explain(err error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var said []string
	for line := range strings.Lines(string(t.last)) {
		// Such as "0.00.008 E llama_model_load: error".
		if _, text, ok := strings.Cut(line, " E "); ok {
			said = append(said, printable.Text(strings.Join(strings.Fields(text), " ")))
		}
	}
	if len(said) == 0 {
		return err
	}
	return fmt.Errorf("%w: %s", err, strings.Join(said, "; "))
}
