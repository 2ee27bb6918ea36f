package artifact

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/credentials"
	"oras.land/oras-go/v2/registry/remote/retry"
)

// Access says how registries are reached.
type Access struct {
	// Login has the credentials for a registry's host; nil: none.
	Login Login
	// PlainHTTP allows HTTP without TLS. Registries on this very machine are always
	// asked so.
	PlainHTTP bool
	// SignIn is how a person gives credentials for a registry, with %s for its host.
	SignIn string
}

// Login returns the credentials for the host of a registry.
type Login func(ctx context.Context, host string) (auth.Credential, error)

// Passwords is a Login of usernames and passwords, "" where there are none.
func Passwords(of func(host string) (username, password string)) Login {
	return func(_ context.Context, host string) (auth.Credential, error) {
		username, password := of(host)
		return auth.Credential{Username: username, Password: password}, nil
	}
}

// DockerLogin has the credentials of Docker's configuration and its helpers, which
// docker login, podman login and oras login fill.
func DockerLogin() (Login, error) {
	store, err := credentials.NewStoreFromDocker(credentials.StoreOptions{})
	if err != nil {
		return nil, fmt.Errorf("read the credentials of registries from Docker's configuration: %w", err)
	}
	return Login(credentials.Credential(store)), nil
}

// repository prepares to talk to the reference's registry.
func (a Access) repository(r Reference) (*remote.Repository, error) {
	repo, err := remote.NewRepository(r.remote.Registry + "/" + r.remote.Repository)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %v", ErrReference, r, err)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.ResponseHeaderTimeout = 5 * time.Minute // a registry reads a large blob again before it answers
	repo.PlainHTTP = a.PlainHTTP || r.loopback()
	repo.Client = &auth.Client{
		Client:     &http.Client{Transport: retry.NewTransport(transport)},
		Cache:      auth.NewCache(),
		Credential: auth.CredentialFunc(a.Login),
		Header:     http.Header{"User-Agent": {"oscine"}},
	}
	return repo, nil
}
