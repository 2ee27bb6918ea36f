package object

import (
	"strings"
	"testing"
	"time"
)

func TestUpdateWindow(t *testing.T) {
	for _, test := range []struct {
		window, at string
		want       bool
	}{
		{"02:30 4h", "2026-11-28T02:29:59Z", false},
		{"02:30 4h", "2026-11-28T02:30:00Z", true},
		{"02:30 4h", "2026-11-28T06:30:00Z", false},
		{"23:00 2h", "2026-11-28T00:59:00Z", true},             // opened the day before
		{"Fri 23:00 2h", "2026-11-28T00:59:00Z", true},         // a Saturday
		{"Sat,Sun 23:00 2h", "2026-11-28T00:59:00Z", false},    // opened on Friday
		{"Sat,Sun 00:00 24h", "2026-11-29T23:59:00Z", true},    // all of Sunday
		{"02:30 4h", "2026-11-28T04:00:00+02:00", false},       // 02:00 in UTC
		{"02:30 4h", "1970-01-01T03:00:00Z", true},             // a clock that was never set
		{"Mon,Tue,Wed 12:00 5m", "2026-11-30T12:04:59Z", true}, // a Monday
	} {
		w, err := ParseUpdateWindow(test.window)
		if err != nil {
			t.Fatal(err)
		}
		at, err := time.Parse(time.RFC3339, test.at)
		if err != nil {
			t.Fatal(err)
		}
		if got := w.Contains(at); got != test.want {
			t.Errorf("%s at %s: got %t", test.window, test.at, got)
		}
		if again, err := ParseUpdateWindow(w.String()); err != nil || again.String() != w.String() {
			t.Errorf("%s read again: %v, %v", w, again, err)
		}
	}
	for _, text := range []string{"", "4h", "25:00 4h", "02:30 25h", "02:30 1m", "Sonntag 02:30 4h", "Sat 02:30 x", "a b c d"} {
		if _, err := ParseUpdateWindow(text); err == nil {
			t.Errorf("%q: accepted", text)
		}
	}
}

func TestMachineUpdateIsChecked(t *testing.T) {
	const machine = "apiVersion: oscine.dev/v1\nkind: Machine\nmetadata: {name: a}\nspec:\n  update: "
	for text, want := range map[string]string{
		"{policy: auto}":                                "spec.update.source",
		"{policy: always}":                              "spec.update.policy",
		"{checkEvery: 1s}":                              "spec.update.checkEvery",
		"{gate: {deadline: 5h}}":                        "spec.update.gate.deadline",
		"{gate: {http: ['ftp://x']}}":                   "spec.update.gate.http[0]",
		"{windows: [{start: '2', duration: 1h}]}":       "spec.update.windows[0]",
		"{peers: ['https://edge1:7443']}":               "spec.update.peers[0]: must be the host and port of another node",
		"{peers: [edge1, 'edge1:70000']}":               "spec.update.peers[1]",
		"{peers: [edge1, 'edge1:7443']}":                "spec.update.peers[1]: names edge1:7443 a second time",
		"{peers: [a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q]}":  "spec.update.peers: must be at most 16, got 17",
		"{share: {size: 1Mi}}":                          "spec.update.share.size: must be bytes, at least 64Mi, got 1Mi",
		"{share: {bandwidth: 1Mi}}":                     "spec.update.share.size: is needed with a bandwidth",
		"{windows: [{start: '02:00', days: [Funday]}]}": "spec.update.windows[0]",
	} {
		_, err := Kinds().Parse(strings.NewReader(machine + text + "\n"))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", text, err, want)
		}
	}
}

func TestCheckReleaseSource(t *testing.T) {
	for source, good := range map[string]bool{
		"https://releases.example.com/a": true, "http://10.0.2.2:8000": true, "/data/releases": true, "file:///data/releases": true,
		"oci://ghcr.io/acme/releases:stable": true, "oci://127.0.0.1:5000/x": true, "stick:RELEASES": true, "stick:RELEASES/a/b": true,
		"": false, "releases": false, "https://": false, "ftp://x/y": false, "oci://": false, "oci:folder": false, "stick:": false, "stick:/a": false, "stick:A/../b": false, "file:a": false,
	} {
		if err := CheckReleaseSource(source); (err == nil) != good {
			t.Errorf("%q: got %v", source, err)
		}
	}
}

func TestParsePeer(t *testing.T) {
	for text, want := range map[string]string{
		"edge1": "edge1:7443", "10.0.0.2": "10.0.0.2:7443", "edge1.example.com:444": "edge1.example.com:444",
		"[fd00::2]": "[fd00::2]:7443", "[fd00::2]:444": "[fd00::2]:444",
		"": "", "edge1:": "", "edge1:0": "", "a/b": "", "user@edge1": "", ":7443": "", "edge1:x": "",
	} {
		if got, err := ParsePeer(text); got != want || (err == nil) != (want != "") {
			t.Errorf("%q: got %q, %v", text, got, err)
		}
	}
}
