package cli

import (
	"context"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "oscine.dev/oscine/internal/api/oscinepb"
	pbconnect "oscine.dev/oscine/internal/api/oscinepb/oscinepbconnect"
)

// upgradingNode answers Status with one stage after the other.
type upgradingNode struct {
	pbconnect.UnimplementedUpgradesHandler
	stages []*pb.Upgrade // the last one stays
	asked  *pb.StartUpgradeRequest
	locked *pb.LockUpgradeRequest
}

func (u *upgradingNode) Lock(_ context.Context, req *connect.Request[pb.LockUpgradeRequest]) (*connect.Response[pb.LockUpgradeResponse], error) {
	u.locked = req.Msg
	return connect.NewResponse(&pb.LockUpgradeResponse{}), nil
}

func (u *upgradingNode) Start(_ context.Context, req *connect.Request[pb.StartUpgradeRequest]) (*connect.Response[pb.StartUpgradeResponse], error) {
	u.asked = req.Msg
	return connect.NewResponse(&pb.StartUpgradeResponse{Upgrade: &pb.Upgrade{Number: 7}}), nil
}

func (u *upgradingNode) Status(context.Context, *connect.Request[pb.UpgradeStatusRequest]) (*connect.Response[pb.UpgradeStatusResponse], error) {
	now := u.stages[0]
	if now == nil { // the node restarts
		u.stages = u.stages[1:]
		return nil, connect.NewError(connect.CodeUnavailable, context.DeadlineExceeded)
	}
	if len(u.stages) > 1 {
		u.stages = u.stages[1:]
	}
	return connect.NewResponse(&pb.UpgradeStatusResponse{
		Upgrade:  now,
		Slots:    []*pb.SlotVersion{{Slot: "root-a", Version: "1.0", Health: "good", Running: true, Kernel: "7.2"}, {Slot: "root-b", Version: "1.1", Health: "trial", TriesLeft: 2, Kernel: "7.2"}},
		Locks:    []*pb.UpgradeLock{{Name: "training", By: "ci", Reason: "epoch 7"}},
		NoReturn: &pb.UpgradeLock{Name: "db", By: "ci", Reason: "format 9"}, NoReturnVersion: "1.0",
		Pin: "1.1", Floor: "0.9", Hold: &pb.UpgradeLock{By: "anna", Reason: "freeze"},
		Refused: []*pb.RefusedVersion{{Version: "1.2", Reason: "its checks: \x1b[2J"}},
	}), nil
}

func (u *upgradingNode) Plan(context.Context, *connect.Request[pb.StartUpgradeRequest]) (*connect.Response[pb.PlanUpgradeResponse], error) {
	return connect.NewResponse(&pb.PlanUpgradeResponse{
		Version: "1.1", Kernel: "7.2", Running: "1.0", Slot: "root-b", FetchBytes: 1 << 20, RootBytes: 30 << 20, Delta: true, Peer: "edge1\x1b:7443",
		Files: []*pb.PinnedFile{{Kind: "pack", Name: "llama.erofs", SizeBytes: 2 << 20}, {Kind: "model", Name: "digits\x1b.onnx", SizeBytes: 3 << 20, Stored: true}},
	}), nil
}

func (u *upgradingNode) History(context.Context, *connect.Request[pb.UpgradeHistoryRequest]) (*connect.Response[pb.UpgradeHistoryResponse], error) {
	return connect.NewResponse(&pb.UpgradeHistoryResponse{Upgrades: u.stages}), nil
}

func upgradeAt(stage, message string) *pb.Upgrade {
	u := &pb.Upgrade{Number: 7, From: "1.0", To: "1.1", Stage: stage, Message: message, By: "anna"}
	if stage == "good" || stage == "failed" {
		u.Ended = timestamppb.New(time.Unix(1_700_000_000, 0))
	}
	if stage == "failed" {
		u.Files = []*pb.ReceivedFile{{Name: "root\x1b.from-1.0", Peer: "10.0.0.2:7443", Bytes: 3 << 20}, {Name: "image", Bytes: 1 << 20}}
		u.FailedStage, u.Log = "trial", []string{"[ 1.0] boot of x", "[ 2.0] \x1b[2Jpanic"}
	}
	return u
}

// TestUpgradeWait waits over a restart of the node, and ends as the upgrade did.
func TestUpgradeWait(t *testing.T) {
	downloading := upgradeAt("downloading", "")
	downloading.DoneBytes, downloading.SizeBytes, downloading.Peer = 50, 100, "10.0.0.2:7443"
	u := &upgradingNode{stages: []*pb.Upgrade{downloading, upgradeAt("rebooting", ""), nil, upgradeAt("good", "")}}
	n := &fakeNode{upgrades: u}
	n.serve(t)
	status, out, errOut := n.command(t, "upgrade", "https://r.example.com", "--to", "1.1", "--at", "2h", "--reboot-window", "Sat 02:00 1h", "--force", "--wait")
	if status != 0 || !strings.Contains(out, "1.1 passed its checks at") {
		t.Errorf("status %d: %s%s", status, out, errOut)
	}
	for _, line := range []string{"1.0 → 1.1: downloading, 50 % of 100 B, from the peer 10.0.0.2:7443", "1.0 → 1.1: rebooting", "1.0 → 1.1: good"} {
		if !strings.Contains(errOut, line) {
			t.Errorf("%q is missing in\n%s", line, errOut)
		}
	}
	if a := u.asked; a.Source != "https://r.example.com" || a.To != "1.1" || !a.Force || len(a.Windows) != 1 || a.NotBefore.AsTime().Before(time.Now().Add(time.Hour)) {
		t.Errorf("asked for %v", a)
	}
	u.stages = []*pb.Upgrade{upgradeAt("failed", "its checks: no network")}
	status, out, errOut = n.command(t, "upgrade", "--wait=1m")
	if status != exitFailure || !strings.Contains(errOut, "the upgrade to 1.1 failed at stage trial, and the node runs 1.0: its checks: no network") {
		t.Errorf("status %d: %s%s", status, out, errOut)
	}
	if !strings.Contains(errOut, "panic") || strings.Contains(errOut, "\x1b") {
		t.Errorf("the log: %q", errOut)
	}
}

func TestUpgradeStatusAndHistory(t *testing.T) {
	u := &upgradingNode{stages: []*pb.Upgrade{upgradeAt("failed", "its checks: no network")}}
	n := &fakeNode{upgrades: u}
	n.serve(t)
	status, out, errOut := n.command(t, "upgrade", "status")
	if status != 0 {
		t.Fatal(errOut)
	}
	for _, line := range []string{"1.0, good, running, kernel 7.2", "1.1, trial with 2 tries left", "Failed stage", "its checks: no network", "Lock training", "Pinned to", "Held", "Oldest accepted", "No return before  1.0: db, by ci: format 9", "Refused 1.2", ".from-1.0: 3 MiB from the peer 10.0.0.2:7443\n", "Downloaded", "image: 1 MiB from the source\n"} {
		if !strings.Contains(out, line) {
			t.Errorf("%q is missing in\n%s", line, out)
		}
	}
	if strings.Contains(out, "\x1b") {
		t.Errorf("control bytes: %q", out)
	}
	if _, out, _ = n.command(t, "upgrade", "history"); !strings.Contains(out, "failed at stage trial") {
		t.Errorf("history: %s", out)
	}
}

func TestUpgradeDryRun(t *testing.T) {
	n := &fakeNode{upgrades: &upgradingNode{}}
	n.serve(t)
	status, out, errOut := n.command(t, "upgrade", "--dry-run")
	if status != 0 || strings.Contains(out, "\x1b") {
		t.Errorf("status %d: %q%s", status, out, errOut)
	}
	for _, line := range []string{"1.0 would be replaced by 1.1 (kernel 7.2)\n", "fetch a delta of the root: ", "for a root of 30 MiB, from the peer edge1", "fetch the pack llama.erofs: ", ".onnx: 3 MiB, stored already\n", "write it to root-b, restart"} {
		if !strings.Contains(out, line) {
			t.Errorf("%q is missing in\n%s", line, out)
		}
	}
}

func TestUpgradeLock(t *testing.T) {
	u := &upgradingNode{}
	n := &fakeNode{upgrades: u}
	n.serve(t)
	if status, out, errOut := n.command(t, "upgrade", "lock", "db", "--no-return", "--reason", "format 9", "--for", "1m"); status != 0 || !strings.Contains(out, "locked: db") {
		t.Errorf("status %d: %s%s", status, out, errOut)
	}
	if l := u.locked; l.Name != "db" || !l.NoReturn || l.Seconds != 60 || l.Reason != "format 9" {
		t.Errorf("locked %v", l)
	}
}

func TestUpgradeFlags(t *testing.T) {
	n := &fakeNode{upgrades: &upgradingNode{}}
	n.serve(t)
	for want, args := range map[string][]string{
		"--at":   {"--at", "tomorrow"},
		"--wait": {"--wait=soon"},
		"SOURCE": {"/a", "/b"},
		`has no command "staus": do you mean status`:   {"staus"},
		"--now and --reboot-window exclude each other": {"--now", "--reboot-window", "02:00 1h"},
	} {
		if status, _, errOut := n.command(t, append([]string{"upgrade"}, args...)...); status != exitUsage || !strings.Contains(errOut, want) {
			t.Errorf("%v: status %d, %s", args, status, errOut)
		}
	}
}
