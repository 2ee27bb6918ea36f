package nvml

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"oscine.dev/oscine/internal/hardware"
	"oscine.dev/oscine/internal/nvml/nvmltest"
)

// share has the helper divide the first GPU.
func share(t *testing.T, n *rig, r hardware.ShareRequest) (hardware.ShareAnswer, error) {
	t.Helper()
	r.Device = nvmltest.First
	return (&hardware.Driver{Program: n.Program}).Share(t.Context(), r)
}

func must(t *testing.T, n *rig, r hardware.ShareRequest) hardware.ShareAnswer {
	t.Helper()
	answer, err := share(t, n, r)
	if err != nil {
		t.Fatalf("%+v: %v", r, err)
	}
	return answer
}

// partitions are those that the map shows, and whether MIG is on.
func partitions(t *testing.T, n *rig) (ids []string, mig bool) {
	t.Helper()
	m, _ := ask(t, n)
	a := find(t, m, nvmltest.First)
	for _, p := range a.Partitions {
		ids = append(ids, p.ID+" "+p.Profile)
	}
	return ids, a.Attributes["mig"] == true
}

func testPartitions(t *testing.T, n *rig) {
	small := hardware.ShareRequest{Action: hardware.SharePartition, Profile: "1g.10gb", Start: 6}
	large := hardware.ShareRequest{Action: hardware.SharePartition, Profile: "3g.40gb", Start: 0}
	p := must(t, n, small).Partition
	want := &hardware.Partition{ID: "mig1-0", Profile: "1g.10gb", Memory: 9984 << 20, Start: 6, Slices: 1,
		DeviceNodes: []string{"/dev/nvidia-caps/nvidia-cap100", "/dev/nvidia-caps/nvidia-cap101"}}
	if diff := cmp.Diff(want, p); diff != "" {
		t.Errorf("partition (-want +got):\n%s", diff)
	}
	// Asked again, as after a restart of the daemon, it is the same.
	if again := must(t, n, small).Partition; again.ID != p.ID {
		t.Errorf("asked again: %+v", again)
	}
	must(t, n, large)
	ids, mig := partitions(t, n)
	if diff := cmp.Diff([]string{"gpu0-mig2-0 3g.40gb", "gpu0-mig1-0 1g.10gb"}, ids); diff != "" || !mig {
		t.Errorf("MIG %v (-want +got):\n%s", mig, diff)
	}
	if _, err := share(t, n, hardware.ShareRequest{Action: hardware.SharePartition, Profile: "2g.20gb", Start: 2}); err == nil || !strings.Contains(err.Error(), "belongs to the partition 3g.40gb at 0") {
		t.Errorf("a place that is taken: %v", err)
	}
	for _, action := range []string{hardware.ShareWhole, hardware.ShareExclusive, hardware.ShareMPS} {
		if _, err := share(t, n, hardware.ShareRequest{Action: action, Directory: t.TempDir()}); err == nil || !strings.Contains(err.Error(), "cut into 2 partitions") {
			t.Errorf("%s of a GPU that is cut: %v", action, err)
		}
	}
	small.Action, large.Action = hardware.ShareUnpartition, hardware.ShareUnpartition
	must(t, n, small)
	must(t, n, small) // once more changes nothing
	if ids, mig := partitions(t, n); len(ids) != 1 || !mig {
		t.Errorf("after one is gone: %v, MIG %v", ids, mig)
	}
	must(t, n, large)
	if ids, mig := partitions(t, n); len(ids) != 0 || mig {
		t.Errorf("after all are gone: %v, MIG %v, want a whole GPU", ids, mig)
	}
}

func testNothingHalfDone(t *testing.T, n *rig) {
	for fail, want := range map[string]string{
		"nvmlDeviceSetMigMode=4":                      "run as root",
		"nvmlDeviceSetMigMode=3":                      "cannot do that",
		"activation=19":                               "in use: stop what runs on it",
		"activation=16":                               "must be reset first",
		"nvmlDeviceCreateGpuInstanceWithPlacement=23": "no room",
		"nvmlGpuInstanceCreateComputeInstance=23":     "no room",
		"nvmlComputeInstanceGetInfo_v2=999":           "NVML error 999",
	} {
		n.Fail(fail)
		_, err := share(t, n, hardware.ShareRequest{Action: hardware.SharePartition, Profile: "1g.10gb"})
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), nvmltest.First) {
			t.Errorf("%s: got %v, want %q", fail, err, want)
		}
		n.Fail()
		if ids, mig := partitions(t, n); len(ids) != 0 || mig {
			t.Errorf("%s left %v, MIG %v", fail, ids, mig)
		}
	}
	if _, err := share(t, n, hardware.ShareRequest{Action: hardware.SharePartition, Profile: "1g.10gb", Start: 7}); err == nil || !strings.Contains(err.Error(), "no partition 1g.10gb at slice 7") {
		t.Errorf("a place that is none: %v", err)
	}
	if _, mig := partitions(t, n); mig {
		t.Error("MIG stays on after a refusal")
	}
}

// mode is the compute mode in the stand-in's file: the second number of a GPU.
func mode(t *testing.T, n *rig) byte {
	t.Helper()
	state, err := os.ReadFile(filepath.Join(n.Dir, "state"))
	if err != nil {
		t.Fatal(err)
	}
	return state[4]
}

func testComputeModes(t *testing.T, n *rig) {
	for _, c := range []struct {
		action string
		want   ComputeMode
	}{{hardware.ShareExclusive, ExclusiveProcess}, {hardware.ShareWhole, DefaultMode}, {hardware.ShareExclusive, ExclusiveProcess}, {hardware.ShareIdle, DefaultMode}} {
		must(t, n, hardware.ShareRequest{Action: c.action})
		if got := mode(t, n); got != byte(c.want) {
			t.Errorf("%s: compute mode %d, want %v", c.action, got, c.want)
		}
	}
}

// A GPU without compute modes can be given whole all the same.
func testNoComputeModes(t *testing.T, n *rig) {
	n.Fail("nvmlDeviceGetComputeMode=3", "nvmlDeviceSetComputeMode=3", "nvmlDeviceGetMigMode=3")
	must(t, n, hardware.ShareRequest{Action: hardware.ShareWhole})
	must(t, n, hardware.ShareRequest{Action: hardware.ShareIdle})
	if _, err := share(t, n, hardware.ShareRequest{Action: hardware.ShareExclusive}); err == nil || !strings.Contains(err.Error(), "cannot do that") {
		t.Errorf("exclusive: %v", err)
	}
}

func testMPS(t *testing.T, n *rig) {
	dir := filepath.Join(t.TempDir(), "gpu0")
	start := hardware.ShareRequest{Action: hardware.ShareMPS, Directory: dir, Limit: hardware.ShareAmount{Percent: 40, Memory: 10 << 30}}
	must(t, n, start)
	if got := mode(t, n); got != byte(ExclusiveProcess) {
		t.Errorf("compute mode %d, want that nobody goes past MPS", got)
	}
	start.Limit.Percent = 60
	if a := must(t, n, start); a.Env != nil || a.Mounts != nil {
		t.Errorf("nobody came, and would need %v, %v", a.Env, a.Mounts)
	}
	log, err := os.ReadFile(filepath.Join(dir, "log", "control.log"))
	if err != nil {
		t.Fatal(err)
	}
	told := strings.ReplaceAll(string(log), "get_server_list\n", "")
	limits := func(percent string) string {
		return "set_default_active_thread_percentage " + percent + "\nset_default_device_pinned_mem_limit 0 10240M\nset_active_thread_percentage 4711 " + percent + "\nset_device_pinned_mem_limit 4711 0 10240M\n"
	}
	if diff := cmp.Diff("start GPU-secret-0\n"+limits("40")+limits("60"), told); diff != "" {
		t.Errorf("what the daemon was told (-want +got):\n%s", diff)
	}
	client := start
	client.User = &hardware.ShareAmount{Percent: 30, Memory: 4 << 30}
	got := must(t, n, client)
	want := hardware.ShareAnswer{Schema: hardware.DriverSchema,
		Env:    []string{"CUDA_MPS_PIPE_DIRECTORY=/run/nvidia-mps", "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE=30", "CUDA_MPS_CLIENT_PRIORITY=0", "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT=0=4096M"},
		Mounts: []hardware.ShareMount{{Source: filepath.Join(dir, "pipe"), Target: "/run/nvidia-mps"}, {Source: filepath.Join(dir, "shm"), Target: "/dev/shm"}}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("what a client needs (-want +got):\n%s", diff)
	}
	// An answer that is none is a refusal, though the program ends well.
	deaf := filepath.Join(n.Dir, "deaf")
	if err := os.WriteFile(deaf, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := share(t, n, start); err == nil || !strings.Contains(err.Error(), `set_default_active_thread_percentage 60: the control daemon answers "100.0"`) {
		t.Errorf("a limit that was not taken: %v", err)
	}
	if err := os.Remove(deaf); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(filepath.Join(dir, "shm")); err != nil || info.Mode()&os.ModeSticky == 0 || info.Mode().Perm() != 0o777 {
		t.Errorf("the shared memory: %v, %v", info, err)
	}
	must(t, n, hardware.ShareRequest{Action: hardware.ShareIdle, Directory: dir})
	if got := mode(t, n); got != byte(DefaultMode) || (MPS{Control: filepath.Join(n.Dir, "mps-control.sh"), Directory: dir}).Running(t.Context()) {
		t.Errorf("idle: compute mode %d, or MPS runs on", got)
	}
	// What cannot start leaves the GPU as it was.
	n.FailMPS(true)
	if _, err := share(t, n, start); err == nil || !strings.Contains(err.Error(), "start the control daemon") {
		t.Errorf("a daemon that does not start: %v", err)
	}
	if got := mode(t, n); got != byte(DefaultMode) {
		t.Errorf("a refusal left compute mode %d", got)
	}
	n.FailMPS(false)
	// MPS of one user at a time is not used.
	control := filepath.Join(n.Dir, "mps-control.sh")
	text, err := os.ReadFile(control)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(control, []byte(strings.ReplaceAll(string(text), "multiuser-server", "other")), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := share(t, n, start); err == nil || !strings.Contains(err.Error(), "one user at a time") {
		t.Errorf("MPS of one user: %v", err)
	}
	if m, _ := ask(t, n); find(t, m, nvmltest.First).Attributes["mps"] != false {
		t.Error("MPS of one user is offered")
	}
}

// TestRealMPS tries NVIDIA's own control daemon, which needs no GPU until a
// client comes, where OSCINE_MPS_CONTROL names it.
func TestRealMPS(t *testing.T) {
	control := os.Getenv("OSCINE_MPS_CONTROL")
	if control == "" {
		t.Skip("needs NVIDIA's nvidia-cuda-mps-control: name it in OSCINE_MPS_CONTROL (Debian: nvidia-cuda-mps)")
	}
	m := MPS{Control: control, Directory: filepath.Join(t.TempDir(), "gpu0")}
	if err := m.MultiUser(); err != nil {
		t.Skip(err)
	}
	if m.Running(t.Context()) {
		t.Fatal("it runs before it is started")
	}
	if err := m.Start(t.Context(), "GPU-00000000-0000-0000-0000-000000000000"); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := m.Stop(t.Context()); err != nil || m.Running(t.Context()) {
			t.Errorf("stop: %v", err)
		}
	}()
	if err := m.Start(t.Context(), ""); err != nil {
		t.Errorf("started again: %v", err)
	}
	if err := m.Limit(t.Context(), 40, 10<<30); err != nil {
		t.Error(err)
	}
	for command, want := range map[string]string{"get_default_active_thread_percentage": "40.0", "get_default_device_pinned_mem_limit 0": "10G"} {
		if got, err := m.Do(t.Context(), command); err != nil || got != want {
			t.Errorf("%s: %q, %v, want %s", command, got, err, want)
		}
	}
	if err := m.Limit(t.Context(), 400, 0); err == nil || !strings.Contains(err.Error(), "answers") {
		t.Errorf("400 %%: %v", err)
	}
}

func testBadRequests(t *testing.T, n *rig) {
	for _, r := range []hardware.ShareRequest{{Action: "sell"}, {}, {Action: hardware.ShareMPS}, {Action: hardware.SharePartition, Profile: "9g.1gb"}, {Action: hardware.SharePartition, Profile: "1g.10gb", Start: -1}} {
		if _, err := share(t, n, r); err == nil {
			t.Errorf("%+v was done", r)
		}
	}
	if _, err := (&hardware.Driver{Program: n.Program}).Share(t.Context(), hardware.ShareRequest{Device: "0000:99:00.0", Action: hardware.ShareIdle}); err == nil || !strings.Contains(err.Error(), "0000:99:00.0") {
		t.Errorf("a GPU that is not there: %v", err)
	}
}
