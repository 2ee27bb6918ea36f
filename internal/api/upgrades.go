package api

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"connectrpc.com/connect"
	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "oscine.dev/oscine/internal/api/oscinepb"
	"oscine.dev/oscine/internal/node/upgrade"
	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/update/slot"
)

// upgrader takes the machine from release to release.
type upgrader interface {
	Upgrades() *upgrade.Manager
}

// upgradeService implements oscine.v1.Upgrades.
type upgradeService struct{ node upgrader }

// maxWindows bounds the windows of one request.
const maxWindows = 32

func (s *upgradeService) request(ctx context.Context, m *pb.StartUpgradeRequest) (upgrade.Request, error) {
	who, _ := ctx.Value(callerKey{}).(caller)
	r := upgrade.Request{Source: m.Source, To: m.To, By: who.name, Options: upgrade.Options{
		Anytime: m.Anytime, OverrideLocks: m.OverrideLocks, Force: m.Force, DownloadOnly: m.DownloadOnly,
	}}
	if m.NotBefore != nil {
		r.NotBefore = m.NotBefore.AsTime()
	}
	if m.GateSeconds < 0 || m.GateSeconds > 3600 {
		return r, fmt.Errorf("%w: the checks get 1 to 3600 seconds, got %d", errdefs.ErrInvalidArgument, m.GateSeconds)
	}
	r.GateDeadline = time.Duration(m.GateSeconds) * time.Second
	if len(m.Windows) > maxWindows {
		return r, fmt.Errorf("%w: at most %d windows", errdefs.ErrInvalidArgument, maxWindows)
	}
	for _, text := range m.Windows {
		w, err := object.ParseUpdateWindow(text)
		if err != nil {
			return r, fmt.Errorf("%w: %w", errdefs.ErrInvalidArgument, err)
		}
		r.Windows = append(r.Windows, w)
	}
	return r, nil
}

func (s *upgradeService) Start(ctx context.Context, req *connect.Request[pb.StartUpgradeRequest]) (*connect.Response[pb.StartUpgradeResponse], error) {
	r, err := s.request(ctx, req.Msg)
	if err != nil {
		return nil, err
	}
	u, err := s.node.Upgrades().Start(r)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.StartUpgradeResponse{Upgrade: upgradeMessage(u)}), nil
}

func (s *upgradeService) Plan(ctx context.Context, req *connect.Request[pb.StartUpgradeRequest]) (*connect.Response[pb.PlanUpgradeResponse], error) {
	r, err := s.request(ctx, req.Msg)
	if err != nil {
		return nil, err
	}
	p, err := s.node.Upgrades().Plan(ctx, r)
	if err != nil {
		return nil, err
	}
	manifest := p.Manifest
	slots := s.node.Upgrades().Status().Slots
	plan := &pb.PlanUpgradeResponse{
		Version: manifest.Version, Kernel: manifest.Kernel, Running: slots.Active.Version, Slot: slots.Idle.Slot,
		FetchBytes: p.Root.Size, RootBytes: manifest.Root.Size, Delta: p.Root.Base != "", Peer: p.Peer,
	}
	for _, p := range s.node.Upgrades().Pins(manifest) {
		plan.Files = append(plan.Files, &pb.PinnedFile{Kind: p.Kind, Name: p.Name, SizeBytes: p.Size, Stored: p.Here})
	}
	return connect.NewResponse(plan), nil
}

func (s *upgradeService) Cancel(ctx context.Context, _ *connect.Request[pb.CancelUpgradeRequest]) (*connect.Response[pb.CancelUpgradeResponse], error) {
	who, _ := ctx.Value(callerKey{}).(caller)
	u, err := s.node.Upgrades().Cancel(who.name)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.CancelUpgradeResponse{Upgrade: upgradeMessage(u)}), nil
}

func (s *upgradeService) Status(_ context.Context, req *connect.Request[pb.UpgradeStatusRequest]) (*connect.Response[pb.UpgradeStatusResponse], error) {
	st := s.node.Upgrades().Status()
	resp := &pb.UpgradeStatusResponse{Problem: st.Problem, Pin: st.Pin, Floor: st.Floor, Hold: lockMessage(st.Hold)}
	chosen := st.Current
	if chosen == nil {
		chosen = st.Last
	}
	if n := req.Msg.Number; n != 0 {
		if chosen = s.node.Upgrades().Find(int(n)); chosen == nil {
			return nil, fmt.Errorf("upgrade %d: %w", n, upgrade.ErrNothing)
		}
	}
	if chosen != nil {
		resp.Upgrade = upgradeMessage(chosen)
		if st.Progress != nil && st.Current != nil && chosen.Number == st.Current.Number {
			resp.Upgrade.DoneBytes, resp.Upgrade.SizeBytes = st.Progress.Done, st.Progress.Size
			resp.Upgrade.Peer = st.Progress.From
		}
	}
	if p := st.NoReturn; p != nil {
		resp.NoReturn, resp.NoReturnVersion = lockMessage(&p.Lock), p.Version
	}
	if st.Problem == "" {
		resp.Slots = []*pb.SlotVersion{slotMessage(st.Slots.Active), slotMessage(st.Slots.Idle)}
	}
	for i := range st.Locks {
		resp.Locks = append(resp.Locks, lockMessage(&st.Locks[i]))
	}
	for _, v := range slices.Sorted(maps.Keys(st.Refused)) {
		resp.Refused = append(resp.Refused, &pb.RefusedVersion{Version: v, Reason: st.Refused[v].Reason, At: timestamppb.New(st.Refused[v].At)})
	}
	return connect.NewResponse(resp), nil
}

func (s *upgradeService) History(context.Context, *connect.Request[pb.UpgradeHistoryRequest]) (*connect.Response[pb.UpgradeHistoryResponse], error) {
	resp := &pb.UpgradeHistoryResponse{}
	for _, u := range s.node.Upgrades().History() {
		resp.Upgrades = append(resp.Upgrades, upgradeMessage(u))
	}
	return connect.NewResponse(resp), nil
}

func (s *upgradeService) Lock(ctx context.Context, req *connect.Request[pb.LockUpgradeRequest]) (*connect.Response[pb.LockUpgradeResponse], error) {
	who, _ := ctx.Value(callerKey{}).(caller)
	const most = 366 * 24 * 3600
	if req.Msg.Seconds < 0 || req.Msg.Seconds > most {
		return nil, fmt.Errorf("%w: a lock is held for 0 (no end) to %d seconds, got %d", errdefs.ErrInvalidArgument, most, req.Msg.Seconds)
	}
	l := upgrade.Lock{Name: req.Msg.Name, Reason: req.Msg.Reason, By: who.name, NoReturn: req.Msg.NoReturn}
	if req.Msg.Seconds > 0 {
		l.Until = time.Now().Add(time.Duration(req.Msg.Seconds) * time.Second)
	}
	if err := s.node.Upgrades().AddLock(l); err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.LockUpgradeResponse{}), nil
}

func (s *upgradeService) Unlock(_ context.Context, req *connect.Request[pb.UnlockUpgradeRequest]) (*connect.Response[pb.UnlockUpgradeResponse], error) {
	if err := s.node.Upgrades().RemoveLock(req.Msg.Name); err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.UnlockUpgradeResponse{}), nil
}

func (s *upgradeService) Hold(ctx context.Context, req *connect.Request[pb.HoldUpgradeRequest]) (*connect.Response[pb.HoldUpgradeResponse], error) {
	who, _ := ctx.Value(callerKey{}).(caller)
	m := s.node.Upgrades()
	var err error
	switch what := req.Msg.What.(type) {
	case *pb.HoldUpgradeRequest_Hold:
		err = m.Hold(what.Hold, who.name)
	case *pb.HoldUpgradeRequest_Unhold:
		err = m.Unhold()
	case *pb.HoldUpgradeRequest_Pin:
		if what.Pin == "" {
			return nil, fmt.Errorf("%w: no version to pin is given", errdefs.ErrInvalidArgument)
		}
		err = m.Pin(what.Pin)
	case *pb.HoldUpgradeRequest_Unpin:
		err = m.Pin("")
	default:
		err = fmt.Errorf("%w: hold, unhold, pin or unpin must be given", errdefs.ErrInvalidArgument)
	}
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.HoldUpgradeResponse{}), nil
}

func upgradeMessage(u *upgrade.Upgrade) *pb.Upgrade {
	m := &pb.Upgrade{
		Number: int64(u.Number), From: u.From, To: u.To, Source: u.Source, By: u.By, Stage: string(u.Stage), Message: u.Message, Slot: u.Slot,
		Began: timestamppb.New(u.Began), FailedStage: string(u.FailedStage), Log: u.Log, Boots: int64(u.Boots),
	}
	for _, f := range u.Files {
		m.Files = append(m.Files, &pb.ReceivedFile{Name: f.Name, Peer: f.Peer, Bytes: f.Bytes})
	}
	if u.Ended != nil {
		m.Ended = timestamppb.New(*u.Ended)
	}
	return m
}

func slotMessage(v slot.Version) *pb.SlotVersion {
	return &pb.SlotVersion{
		Slot: v.Slot, Version: v.Version, Health: string(v.Health), Running: v.Running, Kernel: v.Kernel, TriesLeft: int64(v.Left), RootHash: v.RootHash,
	}
}

func lockMessage(l *upgrade.Lock) *pb.UpgradeLock {
	if l == nil {
		return nil
	}
	m := &pb.UpgradeLock{Name: l.Name, Reason: l.Reason, By: l.By, Since: timestamppb.New(l.Since)}
	if !l.Until.IsZero() {
		m.Until = timestamppb.New(l.Until)
	}
	return m
}
