package systemtest

import (
	"crypto/tls"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// testRoles checks that strangers are refused and roles are kept.
func testRoles(n *testNode) {
	t := n.t
	reader := filepath.Join(n.dir, "reader.config")
	operator := filepath.Join(n.dir, "operator.config")
	n.run("config", "credentials", "rita", "--role", "reader", "--authority", n.dir, "-o", reader)
	n.run("config", "credentials", "otto", "--role", "operator", "--authority", n.dir, "-o", operator)
	for _, tc := range []struct {
		config, who string
		args        []string
		allowed     bool
	}{
		{reader, "a reader", []string{"get"}, true},
		{reader, "a reader", []string{"logs", "web"}, true},
		{reader, "a reader", []string{"events"}, true},
		{reader, "a reader", []string{"hardware", "record", "-o", filepath.Join(n.dir, "node.tar.zst")}, true},
		{reader, "a reader", []string{"top", "--every", "100ms"}, true},
		{reader, "a reader", []string{"delete", "workload", "web"}, false},
		{reader, "a reader", []string{"exec", "web", "--", "/web", "say"}, false},
		{reader, "a reader", []string{"image", "remove", webImage}, false},
		{operator, "an operator", []string{"exec", "web", "--", "/web", "say"}, true},
		{operator, "an operator", []string{"reboot"}, false},
		{operator, "an operator", []string{"bench", "latency", "--alone"}, false},
	} {
		out, errOut, code := n.tryWith(tc.config, "", tc.args...)
		if (code == 0) != tc.allowed {
			t.Errorf("%s: oscine %v: exit status %d\n%s%s", tc.who, tc.args, code, out, errOut)
		}
		if !tc.allowed && !strings.Contains(errOut, "needs role") {
			t.Errorf("%s: oscine %v: the error names no role: %s", tc.who, tc.args, errOut)
		}
	}
	testStranger(t, n)
}

func testStranger(t testing.TB, n *testNode) {
	t.Helper()
	// Another cluster's admin.
	foreign := newTestNode(t, t.TempDir(), n.address())
	_, errOut, code := foreign.try("info")
	if code == 0 || !strings.Contains(errOut, "not from this context's authority") {
		t.Errorf("a foreign context: exit status %d, %s", code, errOut)
	}
	// A client without any certificate.
	client := http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	resp, err := client.Post("https://"+n.address()+"/oscine.v1.Node/Info", "application/json", strings.NewReader("{}"))
	if err == nil {
		resp.Body.Close()
		t.Errorf("a client without a certificate got %s", resp.Status)
	}
}
