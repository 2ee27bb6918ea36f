package container

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// want checks that each line is said once at least.
func want(t *testing.T, said string, lines ...string) {
	t.Helper()
	for _, line := range lines {
		if !strings.Contains("\n"+said, "\n"+line+"\n") {
			t.Errorf("no line %q in\n%s", line, said)
		}
	}
}

func TestDefaultsAreTight(t *testing.T) {
	r := withProbe(t)
	if len(r.host().missing) > 0 {
		t.Logf("this host lacks: %s", strings.Join(r.Missing(), "\n"))
	}
	got, _ := output(t, r, Spec{ID: "tight", Args: []string{
		"id", "status", "NoNewPrivs", "status", "CapBnd", "status", "CapEff", "status", "CapAmb", "status", "Seccomp",
		"write", "/etc/x", "write", "/tmp/x", "write", "/run/x", "write", "/dev/shm/x", "keyctl", "unshare", "write", "/proc/sys/kernel/hostname",
		"read", "/proc/kcore", "links", "hostname", "env", "FROM", "cwd", "listen", ":80", "say-to", "/dev/stdout", "read", "/etc/hostname",
	}})
	want(t, got, "id 65532 65532", "NoNewPrivs: 1", "CapBnd: 0000000000000000", "CapEff: 0000000000000000", "CapAmb: 0000000000000000", "Seccomp: 2",
		"write open /etc/x: read-only file system", "write <nil>", "keyctl operation not permitted", "unshare operation not permitted",
		"link lo", "tight <nil>", "env image", "/ <nil>", "listen <nil>", "opened again", "say-to <nil>", "read tight <nil>")
	if strings.Count(got, "write <nil>") != 3 || strings.Count(got, "link ") != 1 {
		t.Errorf("got\n%s", got)
	}
}

func TestUserNamespace(t *testing.T) {
	r := withProbe(t)
	if !r.host().userns {
		t.Skip("skipped: no id-mapped layers on this host")
	}
	for _, id := range []string{"one", "two"} {
		if err := r.Start(t.Context(), Spec{ID: id, Image: probeName, Args: []string{"serve"}}); err != nil {
			t.Fatal(err)
		}
		awaitLog(t, r, id, "ready")
	}
	maps := map[string]bool{}
	for _, id := range []string{"one", "two"} {
		status, err := r.Status(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(filepath.Join("/proc", itoa(status.PID), "uid_map"))
		if err != nil {
			t.Fatal(err)
		}
		fields := strings.Fields(string(text))
		if len(fields) != 3 || fields[0] != "0" || fields[2] != "65536" {
			t.Errorf("%s has the map %q", id, text)
		}
		maps[string(text)] = true
	}
	if len(maps) != 2 {
		t.Errorf("two containers share ids: %v", maps)
	}
}

func TestUsers(t *testing.T) {
	r := withProbe(t)
	for name, test := range map[string]struct {
		spec Spec
		want string
	}{
		"by-number":    {Spec{User: "1234:5678"}, "id 1234 5678"},
		"by-name":      {Spec{User: "web"}, "id 1000 1001"},
		"by-file":      {Spec{User: "1000"}, "id 1000 1001"},
		"unknown":      {Spec{User: "4711"}, "id 4711 4711"},
		"name-group":   {Spec{User: "web:extra"}, "id 1000 1002"},
		"allowed-root": {Spec{User: "0", Security: Security{AllowRoot: true}}, "id 0 0"},
		"root-default": {Spec{Security: Security{AllowRoot: true}}, "id 0 0"},
	} {
		test.spec.ID, test.spec.Args = name, []string{"id", "status", "Groups", "own", "/data/mine", "read", "/data/mine"}
		got, _ := output(t, r, test.spec)
		want(t, got, test.want, "own 1000 1001")
		if mine := strings.Contains(got, "read hello <nil>"); mine != strings.Contains(test.want, "1000") {
			t.Errorf("%s: reads a file of 1000: %v\n%s", name, mine, got)
		}
		if name == "by-name" {
			want(t, got, "Groups: 1002")
		}
	}
	for user, reason := range map[string]string{"0": "is root", "root": "is root", "ghost": "no such name", "70000": "has the ids", "web:ghosts": "/etc/group"} {
		err := r.Start(t.Context(), Spec{ID: "refused", Image: probeName, User: user})
		if err == nil || !strings.Contains(err.Error(), reason) {
			t.Errorf("user %s: %v, want %q", user, err, reason)
		}
	}
	if all, err := r.List(t.Context()); err != nil || len(all) != 7 {
		t.Errorf("refused starts leave something: %v, %v", all, err)
	}
}

func TestLoosened(t *testing.T) {
	r := withProbe(t)
	got, _ := output(t, r, Spec{ID: "loose", Hostname: "other", DNS: []string{"10.1.2.3"}, Env: []string{"BOTH=spec"}, Cwd: "/data",
		User: "1000", Security: Security{WritableRoot: true, AddCapabilities: []string{"NET_BIND_SERVICE", "CHOWN"}},
		Args: []string{"write", "/data/new", "write", "/etc/x", "status", "CapEff", "status", "CapBnd", "hostname", "env", "BOTH", "env", "FROM", "cwd", "read", "/etc/resolv.conf"}})
	want(t, got, "CapEff: 0000000000000401", "CapBnd: 0000000000000401", "other <nil>", "env spec", "env image", "/data <nil>", "read nameserver 10.1.2.3 <nil>")
	got, _ = output(t, r, Spec{ID: "loose", Args: []string{"write", "/x"}, Security: Security{WritableRoot: true, AllowRoot: true}})
	want(t, got, "write <nil>")
	got, _ = output(t, r, Spec{ID: "loose", Args: []string{"read", "/x"}})
	want(t, got, "read  open /x: no such file or directory")
}

func TestMounts(t *testing.T) {
	r := withProbe(t)
	dir := t.TempDir()
	volume, socket := filepath.Join(dir, "volume"), filepath.Join(dir, "socket")
	if err := os.Mkdir(socket, 0o755); err != nil {
		t.Fatal(err)
	}
	mounts := []Mount{{Source: volume, Target: "/var/lib/thing", Volume: true}, {Source: socket, Target: "/tmp", ReadOnly: true}}
	got, _ := output(t, r, Spec{ID: "mounts", Mounts: mounts, Args: []string{
		"own", "/var/lib/thing", "write", "/var/lib/thing/kept", "write", "/tmp/x", "own", "/var/lib/thing/kept",
	}})
	want(t, got, "own 65532 65532", "write <nil>", "write open /tmp/x: read-only file system")
	// Another container, with other ids on the node, finds its files its own.
	got, _ = output(t, r, Spec{ID: "again", Mounts: mounts[:1], Args: []string{"read", "/var/lib/thing/kept", "own", "/var/lib/thing/kept"}})
	want(t, got, "read x <nil>", "own 65532 65532")
	secret := filepath.Join(dir, "secret")
	if err := os.WriteFile(secret, []byte("1234\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	got, _ = output(t, r, Spec{ID: "again", Mounts: []Mount{{Source: secret, Target: "/run/secret", ReadOnly: true}}, Args: []string{"read", "/run/secret", "own", "/run/secret", "write", "/run/secret"}})
	want(t, got, "read 1234 <nil>", "own 0 0", "write open /run/secret: read-only file system")
	for _, bad := range []Mount{{Source: "relative", Target: "/x"}, {Source: dir, Target: "/"}, {Source: dir + "/absent", Target: "/x"}, {Source: dir, Target: "/../.."}} {
		if err := r.Start(t.Context(), Spec{ID: "bad", Image: probeName, Mounts: []Mount{bad}}); err == nil {
			t.Errorf("%+v is taken", bad)
		}
	}
}

func TestRootFS(t *testing.T) {
	r := withProbe(t)
	dir, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	program, err := os.ReadFile(filepath.Join(dir, "probe"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "probe"), program, 0o755); err != nil {
		t.Fatal(err)
	}
	got, _ := output(t, r, Spec{ID: "pack", RootFS: root, Entrypoint: []string{"/probe"}, Args: []string{"id", "write", "/x", "own", "/probe"}})
	want(t, got, "id 65532 65532", "write open /x: read-only file system", "own 0 0")
	if entries, _ := os.ReadDir(root); len(entries) != 1 {
		t.Errorf("the root file system was changed: %v", entries)
	}
}

func TestHostNetwork(t *testing.T) {
	r := withProbe(t)
	got, _ := output(t, r, Spec{ID: "host", NetNS: "host", Args: []string{"links", "read", "/sys/class/net/lo/mtu"}})
	want(t, got, "link lo", "read 65536 <nil>")
}
