package cli

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"testing"

	"oscine.dev/oscine/internal/update/repository"
	"oscine.dev/oscine/internal/update/repository/repositorytest"
)

// What is served is what is published, and nothing of it can be changed.
func TestServeReleases(t *testing.T) {
	dir, _, _ := repositorytest.New(t, repository.Options{}, "1.0.0")
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- serveReleases(ctx, l, root) }()
	base := "http://" + l.Addr().String()
	for path, want := range map[string]int{
		"/metadata/timestamp.json": 200, "/metadata/1.root.json": 200, "/metadata": 404, "/metadata/": 404, "/": 404, "/targets/": 404,
		"/.lock": 404, "/metadata/../.lock": 404, "/targets/../../keys": 404, "/metadata/none.json": 404,
	} {
		response, err := http.Get(base + path)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != want {
			t.Errorf("%s: got %s, want %d", path, response.Status, want)
		}
	}
	response, err := http.Post(base+"/metadata/timestamp.json", "application/json", nil)
	if err != nil || response.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST: got %v, %v", response, err)
	}
	env := &Env{Out: io.Discard, Err: io.Discard}
	c := newReleaseVerifyCommand(env)
	c.SetArgs([]string{base, "--root", dir + "/metadata/1.root.json"})
	c.SetContext(ctx)
	if err := c.Execute(); err != nil {
		t.Error(err)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
