package api

import (
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"connectrpc.com/connect"

	pb "oscine.dev/oscine/internal/api/oscinepb"
)

// eachMethod visits every method of the API's definition.
func eachMethod(visit func(protoreflect.MethodDescriptor)) {
	protoregistry.GlobalFiles.RangeFilesByPackage("oscine.v1", func(file protoreflect.FileDescriptor) bool {
		for i := range file.Services().Len() {
			methods := file.Services().Get(i).Methods()
			for j := range methods.Len() {
				visit(methods.Get(j))
			}
		}
		return true
	})
}

func TestEveryMethodStatesItsOptions(t *testing.T) {
	count := 0
	eachMethod(func(m protoreflect.MethodDescriptor) {
		count++
		if role := ruleOf(connect.Spec{Schema: m}).role; role == pb.Role_ROLE_UNSPECIFIED {
			t.Errorf("%s has no role: say who may call it", m.FullName())
		}
		if m.IsStreamingServer() && !proto.HasExtension(m.Options(), pb.E_Endless) {
			t.Errorf("%s answers with a stream: say whether it is endless", m.FullName())
		}
	})
	if count < 20 {
		t.Errorf("looked at %d methods, want all of the API", count)
	}
}

// Only the node without configuration answers strangers.
func TestOnlyMaintenanceIsOpen(t *testing.T) {
	eachMethod(func(m protoreflect.MethodDescriptor) {
		open := ruleOf(connect.Spec{Schema: m}).role == pb.Role_ROLE_ANYONE
		if maintenance := m.Parent().Name() == "Maintenance"; open != maintenance {
			t.Errorf("%s: open to anyone: %v, want %v", m.FullName(), open, maintenance)
		}
	})
}

func TestUnknownMethodIsRefused(t *testing.T) {
	a := &authorizer{}
	if code := connect.CodeOf(a.check(t.Context(), connect.Spec{Procedure: "/oscine.v1.Node/New"})); code != connect.CodePermissionDenied {
		t.Errorf("a method without options: got %v, want %v", code, connect.CodePermissionDenied)
	}
}
