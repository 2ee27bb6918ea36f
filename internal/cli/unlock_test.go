package cli

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"connectrpc.com/connect"

	pb "oscine.dev/oscine/internal/api/oscinepb"
	pbconnect "oscine.dev/oscine/internal/api/oscinepb/oscinepbconnect"
)

func TestUnlock(t *testing.T) {
	run := person(t)
	m, address, stored := waitingNode(t)
	fingerprint, err := m.Fingerprint()
	if err != nil {
		t.Fatal(err)
	}
	key := writeTemp(t, "GOOD\n")
	unlock := func(args ...string) (int, string) {
		code, out, said := run("", append([]string{"unlock", "--address", address}, args...)...)
		return code, out + said
	}
	if code, said := unlock("--key-file", key, "--fingerprint", fingerprint); code == 0 || !strings.Contains(said, "is not locked: it waits for a configuration") {
		t.Errorf("not locked: exit status %d, %s", code, said)
	}

	var tried []string
	m.Locked = "the TPM was cleared"
	m.OpenLocked = func(key string) error {
		if tried = append(tried, key); key != "GOOD" {
			return errors.New("another key")
		}
		return nil
	}
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"nobody to ask":   {[]string{"--key-file", key}, "compare it with the node's console"},
		"another machine": {[]string{"--key-file", key, "--fingerprint", strings.Repeat("ab", 32)}, "this is another machine"},
		"no key":          {[]string{"--fingerprint", fingerprint}, "give the recovery key by --key-file"},
		"no file":         {[]string{"--fingerprint", fingerprint, "--key-file", "none"}, "none"},
		"a wrong key":     {[]string{"--fingerprint", fingerprint, "--key-file", writeTemp(t, "BAD")}, "another key"},
	} {
		if code, said := unlock(c.args...); code == 0 || !strings.Contains(said, c.want) {
			t.Errorf("%s: exit status %d, %q, want one with %q", name, code, said, c.want)
		}
	}
	if got := strings.Join(tried, " "); got != "BAD" {
		t.Errorf("the node was given the keys %q", got)
	}
	// A locked node takes no configuration.
	dir := t.TempDir()
	if code, _, said := run("", "config", "generate", "edge1", "-o", dir); code != 0 {
		t.Fatal(said)
	}
	if code, _, said := run("", "config", "apply", "-f", filepath.Join(dir, "edge1.yaml"), "--address", address, "--fingerprint", fingerprint); code == 0 || !strings.Contains(said, "oscine unlock") {
		t.Errorf("config apply: exit status %d, %s", code, said)
	}
	code, said := unlock("--fingerprint", fingerprint, "--key-file", key)
	if code != 0 || !strings.Contains(said, "locked: the TPM was cleared") || !strings.Contains(said, "the node restarts") {
		t.Errorf("exit status %d, %s", code, said)
	}
	if len(stored) > 0 {
		t.Error("a locked node was configured")
	}
}

// recovering is a node that makes recovery keys.
type recovering struct {
	pbconnect.UnimplementedNodeHandler
}

func (recovering) CreateRecoveryKey(context.Context, *connect.Request[pb.CreateRecoveryKeyRequest]) (*connect.Response[pb.CreateRecoveryKeyResponse], error) {
	return connect.NewResponse(&pb.CreateRecoveryKeyResponse{RecoveryKey: "AAAAA-BBBBB"}), nil
}

// The recovery key alone is what a script gets.
func TestRecoveryKeyCreate(t *testing.T) {
	n := &fakeNode{whole: recovering{}}
	n.serve(t)
	if status, out, said := n.command(t, "recovery-key", "create"); status != 0 || out != "AAAAA-BBBBB\n" || said != "" {
		t.Errorf("exit status %d, %q, %q", status, out, said)
	}
	for encryption, want := range map[*pb.DataEncryption]string{
		nil:                                "",
		{Method: "tpm"}:                    "Encryption tpm, without a recovery key: make one with oscine recovery-key create",
		{Method: "tpm", RecoveryKey: true}: "Encryption tpm, with a recovery key",
	} {
		var out strings.Builder
		if err := printInfo(&out, &pb.InfoResponse{Encryption: encryption}); err != nil {
			t.Fatal(err)
		}
		got := strings.Join(strings.Fields(out.String()), " ")
		if !strings.Contains(got, want) || want == "" && strings.Contains(got, "Encryption") {
			t.Errorf("want %q in\n%s", want, out.String())
		}
	}
}
