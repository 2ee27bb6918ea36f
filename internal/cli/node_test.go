package cli

import (
	"bytes"
	"strings"
	"testing"

	pb "oscine.dev/oscine/internal/api/oscinepb"
)

func TestInfoShowsTheNetwork(t *testing.T) {
	var out bytes.Buffer
	if err := printInfo(&out, &pb.InfoResponse{Links: []*pb.NetworkLink{
		{Name: "eth0", Source: "dhcp", Addresses: []string{"192.0.2.7/24"}, Gateway: "192.0.2.1", Carrier: true},
		{Name: "eth1", Source: "static", Error: "eth1 has no carrier: check its cable"},
		{Name: "bond0", Source: "static", Carrier: true},
	}}); err != nil {
		t.Fatal(err)
	}
	got := strings.Join(strings.Fields(out.String()), " ")
	for _, want := range []string{"Network eth0 192.0.2.7/24 (dhcp), gateway 192.0.2.1", "Network eth1 eth1 has no carrier: check its cable", "Network bond0 no address (static)"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is missing in\n%s", want, out.String())
		}
	}
}

// Of a hosted node the time from the boot of its host to its API says nothing.
func TestInfoOfAHostedNode(t *testing.T) {
	for mode, want := range map[string]bool{"hosted": false, "image": true} {
		var out strings.Builder
		if err := printInfo(&out, &pb.InfoResponse{Mode: mode, ReadySeconds: 41674}); err != nil || strings.Contains(out.String(), "Ready after") != want {
			t.Errorf("%s: got %v, %s", mode, err, out.String())
		}
	}
}
