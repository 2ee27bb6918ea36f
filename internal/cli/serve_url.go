package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"

	"oscine.dev/oscine/internal/bounded"
	"oscine.dev/oscine/internal/serve/oip"
	"oscine.dev/oscine/internal/signature"
)

// isURL reports whether the argument is the URL of a model.
func isURL(text string) bool {
	text = strings.ToLower(text)
	return strings.HasPrefix(text, "https://") || strings.HasPrefix(text, "http://")
}

// maxDownload bounds a model's file in bytes, as a node does.
const maxDownload = 64 << 30

// download fetches a model's file into a folder of its own, under the name that
// the URL ends in. The caller removes the folder.
func download(ctx context.Context, env *Env, address string) (file string, err error) {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" {
		return "", usageError{fmt.Errorf("%s is no URL of a file", address)}
	}
	name := path.Base(u.Path)
	if name == "." || name == "/" || strings.HasPrefix(name, ".") {
		return "", usageError{fmt.Errorf("%s does not end in a file's name", address)}
	}
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return "", err
	}
	resp, err := http.DefaultClient.Do(q)
	var request *url.Error
	if errors.As(err, &request) && ctx.Err() == nil {
		return "", unreached{fmt.Errorf("%s: no answer: %w: is the address right, and the network there?", address, request.Err)}
	}
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return "", &oip.Error{Status: resp.StatusCode, Text: fmt.Sprintf("%s: the server answered %s: try the address in a browser, or fetch the file yourself and serve that", address, resp.Status)}
	}
	dir, err := os.MkdirTemp("", "oscine-model-")
	if err != nil {
		return "", err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}()
	file = filepath.Join(dir, name)
	f, err := os.Create(file)
	if err != nil {
		return "", err
	}
	bar := newProgress(env, "fetch "+name, max(0, resp.ContentLength))
	n, err := io.Copy(&chunkWriter{send: func(p []byte) error {
		bar.add(len(p))
		_, err := f.Write(p)
		return err
	}}, io.LimitReader(resp.Body, maxDownload+1))
	bar.done()
	switch {
	case err != nil:
		err = fmt.Errorf("fetch %s: %w", address, err)
	case n > maxDownload:
		err = fmt.Errorf("%s has more than %d bytes", address, int64(maxDownload))
	case resp.ContentLength >= 0 && n != resp.ContentLength:
		err = fmt.Errorf("%s: %d of %d bytes came", address, n, resp.ContentLength)
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return "", err
	}
	u.Path, u.RawPath = u.Path+signature.Suffix, ""
	return file, downloadSignature(ctx, u.String(), file+signature.Suffix)
}

// downloadSignature fetches the signature beside a model's file, where there is one.
func downloadSignature(ctx context.Context, address, file string) error {
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(q)
	if err != nil {
		return ctx.Err()
	}
	defer resp.Body.Close()
	raw, err := bounded.ReadAll(resp.Body, signature.MaxFileBytes)
	if resp.StatusCode != http.StatusOK || err != nil || !json.Valid(raw) { // some servers have a page for everything
		return ctx.Err()
	}
	return os.WriteFile(file, raw, 0o600)
}
