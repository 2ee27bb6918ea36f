package access

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"

	"oscine.dev/oscine/internal/durable"
	"oscine.dev/oscine/internal/pattern"
)

// Token lets a client ask for inferences. The node keeps a digest of its secret
// and cannot show it again.
type Token struct {
	Name   string   `json:"name"`
	Digest []byte   `json:"digest"`           // SHA-256 of the whole token
	Models []string `json:"models,omitempty"` // patterns of names as path.Match reads them; none: all models
	// Rate is how many requests a second the client may make in the long run; 0: as
	// many as it likes. Burst of them may come at once; 0: those of a second.
	Rate       float64   `json:"rate,omitempty"`
	Burst      int       `json:"burst,omitempty"`
	Concurrent int       `json:"concurrent,omitempty"` // requests at a time; 0: no bound of its own
	Expires    time.Time `json:"expires,omitzero"`     // zero: never
	By         string    `json:"by"`                   // who made it
	Created    time.Time `json:"created"`
}

// Bounds of the tokens of a node.
const (
	maxTokens     = 10_000
	maxPatterns   = 100
	maxRate       = 1e6
	maxConcurrent = 100_000
	// secretBytes are random: a digest of them needs no salt and no slow hash.
	secretBytes = 32
	tokenPrefix = "oscine_"
)

var tokenNameRE = pattern.New(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

// check refuses a token that could not be made.
func (t *Token) check(now time.Time) error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: token %.70q: %s", errdefs.ErrInvalidArgument, t.Name, fmt.Sprintf(format, args...))
	}
	switch {
	case !tokenNameRE.MatchString(t.Name):
		return bad("its name must be letters, digits, '.', '_' or '-', at most 63")
	case len(t.Models) > maxPatterns:
		return bad("at most %d patterns of models, got %d", maxPatterns, len(t.Models))
	case !(t.Rate >= 0 && t.Rate <= maxRate):
		return bad("its rate must be from 0 to %g requests a second, got %g", maxRate, t.Rate)
	case t.Burst < 0 || float64(t.Burst) > maxRate || t.Burst > 0 && t.Rate == 0:
		return bad("its burst must be from 0 to %g, and needs a rate, got %d", maxRate, t.Burst)
	case t.Concurrent < 0 || t.Concurrent > maxConcurrent:
		return bad("it may have from 0 to %d requests at a time, got %d", maxConcurrent, t.Concurrent)
	case !t.Expires.IsZero() && !t.Expires.After(now):
		return bad("it would have expired already, at %s", t.Expires.Format(time.RFC3339))
	}
	for _, pattern := range t.Models {
		if _, err := path.Match(pattern, ""); err != nil || pattern == "" || len(pattern) > maxName {
			return bad("%.70q is no pattern of models' names", pattern)
		}
	}
	return nil
}

// Allows reports whether the token is for a model.
func (t *Token) Allows(model string) bool {
	return len(t.Models) == 0 || slices.ContainsFunc(t.Models, func(pattern string) bool {
		ok, err := path.Match(pattern, model)
		return ok && err == nil
	})
}

// Tokens are those of a node. A change is on disk before its method returns. It
// is safe for concurrent use.
type Tokens struct {
	path string
	now  func() time.Time

	mu      sync.RWMutex
	clients map[[sha256.Size]byte]*client
}

// OpenTokens reads the tokens, of which there may be none yet.
func OpenTokens(path string) (*Tokens, error) {
	t := &Tokens{path: path, now: time.Now, clients: map[[sha256.Size]byte]*client{}}
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return t, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the tokens: %w", err)
	}
	var all []Token
	if err := json.Unmarshal(raw, &all); err != nil {
		return nil, fmt.Errorf("read the tokens: %s: %w: remove the file, and make them again", path, err)
	}
	for _, one := range all {
		if len(one.Digest) == sha256.Size {
			t.clients[[sha256.Size]byte(one.Digest)] = newClient(one)
		}
	}
	return t, nil
}

// Create makes a token and returns its secret, which nobody can read again.
func (t *Tokens) Create(token Token) (secret string, made Token, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	token.Created = t.now().UTC().Truncate(time.Second)
	if err := token.check(t.now()); err != nil {
		return "", token, err
	}
	if len(t.clients) >= maxTokens {
		return "", token, fmt.Errorf("%w: a node has at most %d tokens: remove those that have expired", errdefs.ErrResourceExhausted, maxTokens)
	}
	for _, c := range t.clients {
		if c.token.Name == token.Name {
			return "", token, fmt.Errorf("%w: there is a token %s: remove it first, or choose another name", errdefs.ErrAlreadyExists, token.Name)
		}
	}
	random := make([]byte, secretBytes)
	_, _ = rand.Read(random) // never fails: see its documentation
	secret = tokenPrefix + base64.RawURLEncoding.EncodeToString(random)
	digest := sha256.Sum256([]byte(secret))
	token.Digest = digest[:]
	changed := maps.Clone(t.clients)
	changed[digest] = newClient(token)
	if err := t.keep(changed); err != nil {
		return "", token, err
	}
	return secret, token, nil
}

// Remove forgets tokens by their names, all or none: from now on they are
// refused.
func (t *Tokens) Remove(names []string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	changed := maps.Clone(t.clients)
	var removed []*client
	for _, name := range names {
		found := false
		for digest, c := range changed {
			if c.token.Name == name {
				delete(changed, digest)
				removed, found = append(removed, c), true
			}
		}
		if !found {
			return fmt.Errorf("%w: no token %.70q", errdefs.ErrNotFound, name)
		}
	}
	if err := t.keep(changed); err != nil {
		return err
	}
	for _, c := range removed {
		c.remove()
	}
	return nil
}

// keep writes the tokens and makes them the node's. The caller holds mu.
func (t *Tokens) keep(clients map[[sha256.Size]byte]*client) error {
	raw, err := json.Marshal(tokensOf(clients))
	if err != nil {
		return err
	}
	if err := durable.WriteFile(t.path, raw, 0o600); err != nil {
		return fmt.Errorf("write the tokens: %w", err)
	}
	t.clients = clients
	return nil
}

func tokensOf(clients map[[sha256.Size]byte]*client) []Token {
	all := make([]Token, 0, len(clients))
	for _, c := range clients {
		all = append(all, c.token)
	}
	slices.SortFunc(all, func(a, b Token) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// Usage is what a token has done since the daemon started.
type Usage struct {
	Requests, Refused int64
	Last              time.Time // zero: not used yet
}

// All returns the tokens in the order of their names, and what each has done.
func (t *Tokens) All() ([]Token, []Usage) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	all := tokensOf(t.clients)
	used := make([]Usage, len(all))
	for i, one := range all {
		used[i] = t.clients[[sha256.Size]byte(one.Digest)].usage()
	}
	return all, used
}

// find returns the client whose secret it is.
func (t *Tokens) find(secret string) (*client, error) {
	digest := sha256.Sum256([]byte(secret))
	t.mu.RLock()
	c := t.clients[digest]
	t.mu.RUnlock()
	if c == nil {
		return nil, fmt.Errorf("%w: the node does not know this token", errdefs.ErrUnauthenticated)
	}
	return c, c.valid(t.now())
}
