package api

import (
	"context"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "oscine.dev/oscine/internal/api/oscinepb"
	"oscine.dev/oscine/internal/attest"
	"oscine.dev/oscine/internal/doctor"
	"oscine.dev/oscine/internal/network"
	"oscine.dev/oscine/internal/node"
	"oscine.dev/oscine/internal/node/identity"
	"oscine.dev/oscine/internal/object"
)

// wholeNode is the node as a whole, for those who look after it.
type wholeNode interface {
	Info() node.Info
	Doctor(context.Context) []doctor.Capability
	Attest(nonce []byte) (*attest.Evidence, error)
	Endorsements() ([][]byte, error)
	Activate(attest.Challenge) (secret []byte, err error)
	Identity() *identity.Identity
	RequestCertificate(nonce []byte) (request []byte, e *attest.Evidence, err error)
	Reboot(powerOff bool) error
	Reset(by string) error
	CreateRecoveryKey(by string) (string, error)
}

// nodeService implements oscine.v1.Node.
type nodeService struct{ node wholeNode }

func (s *nodeService) Info(ctx context.Context, _ *connect.Request[pb.InfoRequest]) (*connect.Response[pb.InfoResponse], error) {
	info := s.node.Info()
	resp := &pb.InfoResponse{
		Name: info.Name, Version: info.Version, Kernel: info.Kernel, Architecture: info.Architecture,
		Mode: string(info.Mode), Slot: info.Slot, Booted: timestamppb.New(info.Booted),
		UptimeSeconds: info.Uptime.Seconds(), ReadySeconds: info.Ready.Seconds(),
		MissingGuarantees: info.Missing,
		Disk: &pb.DiskSpace{
			SizeBytes: info.Disk.Size.Bytes, FreeBytes: info.Disk.Free.Bytes, SizeFiles: info.Disk.Size.Inodes, FreeFiles: info.Disk.Free.Inodes,
		},
	}
	if c := info.Certificate; c.Serial != "" {
		resp.Certificate = &pb.NodeCertificate{Serial: c.Serial, NotAfter: timestamppb.New(c.NotAfter), Problem: c.Problem}
	}
	if e := info.Encryption; e != nil {
		resp.Encryption = &pb.DataEncryption{Method: string(object.EncryptionTPM), RecoveryKey: e.RecoveryKey}
	}
	for _, v := range info.Slots {
		resp.Slots = append(resp.Slots, slotMessage(v))
	}
	for _, l := range info.Links {
		resp.Links = append(resp.Links, linkMessage(l))
	}
	for _, p := range info.Processes {
		resp.SystemMemoryBytes += p.Bytes
		resp.Processes = append(resp.Processes, &pb.ProcessMemory{Name: p.Name, Bytes: p.Bytes})
	}
	return connect.NewResponse(resp), nil
}

func linkMessage(l network.LinkState) *pb.NetworkLink {
	m := &pb.NetworkLink{Name: l.Name, Mac: l.MAC, Carrier: l.Carrier, Source: l.Source}
	for _, a := range l.Addresses {
		m.Addresses = append(m.Addresses, a.String())
	}
	if l.Gateway.IsValid() {
		m.Gateway = l.Gateway.String()
	}
	if !l.Expires.IsZero() {
		m.Expires = timestamppb.New(l.Expires)
	}
	if l.Err != nil {
		m.Error = l.Err.Error()
	}
	return m
}

func (s *nodeService) Doctor(ctx context.Context, _ *connect.Request[pb.DoctorRequest]) (*connect.Response[pb.DoctorResponse], error) {
	resp := &pb.DoctorResponse{}
	for _, c := range s.node.Doctor(ctx) {
		resp.Capabilities = append(resp.Capabilities, &pb.Capability{
			Name: c.Name, Available: c.Available, Detail: c.Detail, NeededFor: c.NeededFor, Remedy: c.Remedy,
		})
	}
	return connect.NewResponse(resp), nil
}

func (s *nodeService) Attest(_ context.Context, req *connect.Request[pb.AttestRequest]) (*connect.Response[pb.AttestResponse], error) {
	e, err := s.node.Attest(req.Msg.Nonce)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(evidenceMessage(e)), nil
}

func (s *nodeService) Endorsements(context.Context, *connect.Request[pb.EndorsementsRequest]) (*connect.Response[pb.EndorsementsResponse], error) {
	certificates, err := s.node.Endorsements()
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.EndorsementsResponse{Certificates: certificates}), nil
}

func (s *nodeService) ActivateCredential(_ context.Context, req *connect.Request[pb.ActivateCredentialRequest]) (*connect.Response[pb.ActivateCredentialResponse], error) {
	secret, err := s.node.Activate(attest.Challenge{Endorsement: req.Msg.Certificate, Credential: req.Msg.Credential, Secret: req.Msg.Secret})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.ActivateCredentialResponse{Secret: secret}), nil
}

func evidenceMessage(e *attest.Evidence) *pb.AttestResponse {
	return &pb.AttestResponse{Public: e.Public, Quote: e.Quote, Signature: e.Signature, Pcrs: e.PCRs}
}

func (s *nodeService) RequestCertificate(_ context.Context, req *connect.Request[pb.RequestCertificateRequest]) (*connect.Response[pb.RequestCertificateResponse], error) {
	request, e, err := s.node.RequestCertificate(req.Msg.Nonce)
	if err != nil {
		return nil, err
	}
	resp := &pb.RequestCertificateResponse{CertificateRequest: string(request)}
	if e != nil {
		resp.Evidence = evidenceMessage(e)
	}
	return connect.NewResponse(resp), nil
}

func (s *nodeService) InstallCertificate(ctx context.Context, req *connect.Request[pb.InstallCertificateRequest]) (*connect.Response[pb.InstallCertificateResponse], error) {
	who, _ := ctx.Value(callerKey{}).(caller)
	if err := s.node.Identity().Install([]byte(req.Msg.Certificate), who.name); err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.InstallCertificateResponse{}), nil
}

func (s *nodeService) Reboot(ctx context.Context, req *connect.Request[pb.RebootRequest]) (*connect.Response[pb.RebootResponse], error) {
	if err := s.node.Reboot(req.Msg.PowerOff); err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.RebootResponse{}), nil
}

func (s *nodeService) Reset(ctx context.Context, _ *connect.Request[pb.ResetRequest]) (*connect.Response[pb.ResetResponse], error) {
	who, _ := ctx.Value(callerKey{}).(caller)
	if err := s.node.Reset(who.name); err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.ResetResponse{}), nil
}

func (s *nodeService) CreateRecoveryKey(ctx context.Context, _ *connect.Request[pb.CreateRecoveryKeyRequest]) (*connect.Response[pb.CreateRecoveryKeyResponse], error) {
	who, _ := ctx.Value(callerKey{}).(caller)
	key, err := s.node.CreateRecoveryKey(who.name)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.CreateRecoveryKeyResponse{RecoveryKey: key}), nil
}
