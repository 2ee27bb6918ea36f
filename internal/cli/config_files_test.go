package cli

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The written files are all that another program needs to call the node.
func TestConfigFiles(t *testing.T) {
	n := labelledNode(t)
	dir := filepath.Join(n.dir, "files")
	status, out, errOut := n.command(t, "config", "files", dir)
	if status != 0 {
		t.Fatal(errOut)
	}
	at := regexp.MustCompile(`--connect-to test:(\d+):(127\.0\.0\.1:\d+) `).FindStringSubmatch(out)
	if at == nil || !strings.Contains(out, "https://test:"+at[1]+"/oscine.v1.Node/Info\n") {
		t.Fatalf("told %q", out)
	}
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "client.crt"), filepath.Join(dir, "client.key"))
	if err != nil {
		t.Fatal(err)
	}
	ca, err := os.ReadFile(filepath.Join(dir, "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	client := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: roots, ServerName: "test"}}}
	resp, err := client.Post("https://"+at[2]+"/oscine.v1.Objects/Get", "application/json", strings.NewReader(`{"kind":"Model"}`))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err != nil || !strings.Contains(string(body), `"name":"digits"`) {
		t.Errorf("the node answers %s, %v", body, err)
	}
	info, err := os.Stat(filepath.Join(dir, "client.key"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key: %v, %v", info.Mode(), err)
	}
}
