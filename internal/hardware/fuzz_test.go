package hardware

import (
	"bytes"
	"encoding/json"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"oscine.dev/oscine/internal/hardware/hardwaretest"

	"oscine.dev/oscine/internal/printable"
)

func FuzzParseList(f *testing.F) {
	for _, seed := range []string{"0-3,8", "", "0", "5-2", "65535", "99999999999", "0-1,\x00", " 1 , 2 "} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		set, err := ParseList(text)
		if err != nil {
			return
		}
		again, err := ParseList(set.String())
		if err != nil || !again.Equal(set) {
			t.Errorf("%q reads as %s and back as %s (%v)", text, set, again, err)
		}
	})
}

func FuzzParseMask(f *testing.F) {
	for _, seed := range []string{"ff", "00000000,ffffffff", "", "0x3", "g", strings.Repeat("f,", 3000), "ff\n\x00"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		set, err := ParseMask(text)
		if err == nil && set.Len() > 0 && (set.First() < 0 || set.First() >= MaxIndex) {
			t.Errorf("%q has member %d", text, set.First())
		}
	})
}

// FuzzAttribute puts foreign bytes into one attribute after the other of a
// machine.
func FuzzAttribute(f *testing.F) {
	board := hardwaretest.RaspberryHailo()
	names := slices.Sorted(maps.Keys(board.Files))
	for i, seed := range []string{"", "-1", "0-65535", "4294967296", "ffffffff,ffffffff", "DEVNAME=..", "x\x00y"} {
		f.Add(i*7, seed)
	}
	f.Fuzz(func(t *testing.T, which int, content string) {
		name := names[((which%len(names))+len(names))%len(names)]
		old := board.Files[name]
		board.Files[name] = content
		defer func() { board.Files[name] = old }()
		useEverything(t, described(t, board))
	})
}

func FuzzArchive(f *testing.F) {
	var b bytes.Buffer
	if err := hardwaretest.CoralDevBoard().Archive(&b); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes()[:min(b.Len(), 16<<10)])
	f.Fuzz(func(t *testing.T, data []byte) {
		read, gaps, err := readArchive(bytes.NewReader(data), "m.tar")
		if err == nil {
			useEverything(t, discover(read, gaps))
		}
	})
}

func FuzzTopology(f *testing.F) {
	f.Add(smallTopology)
	f.Add(`<system><cpu numaid="-1" affinity="zz"><pci busid="" class="03"/><nic/></cpu><x/></system>`)
	f.Fuzz(func(t *testing.T, text string) {
		topology, err := ReadTopology(strings.NewReader(text))
		if err != nil {
			return
		}
		m, err := topology.Machine()
		if err != nil {
			t.Fatal(err)
		}
		useEverything(t, m)
		var b bytes.Buffer
		if err := topology.Write(&b); err != nil {
			t.Fatal(err)
		}
	})
}

func FuzzDecode(f *testing.F) {
	data, err := Encode(described(f, hardwaretest.CoralDevBoard()))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := Decode(data)
		if err != nil {
			return
		}
		CDI(m)
	})
}

func FuzzUevent(f *testing.F) {
	f.Add([]byte("add@/devices/x\x00SUBSYSTEM=pci"))
	f.Fuzz(func(t *testing.T, message []byte) {
		if e, ok := parseUevent(message); ok && strings.Contains(e.Path, "..") {
			t.Errorf("path %q", e.Path)
		}
	})
}

func FuzzFault(f *testing.F) {
	f.Add("NVRM: Xid (PCI:0000:44:00): 79, pid=77")
	f.Add("nvidia 0000:14:00.0: PCIe Bus Error: severity=Uncorrected (Fatal), x")
	f.Fuzz(func(t *testing.T, line string) {
		if fault, ok := parseFault(line); ok && fault.Address == "" {
			t.Errorf("%q names no device", line)
		}
	})
}

// FuzzDriverReport merges what a driver program might print.
func FuzzDriverReport(f *testing.F) {
	f.Add([]byte(`{"schema":"oscine.dev/driver/v1","devices":[{"kind":"quantum","address":"q","node":-7,"localCPUs":"0-3","deviceNodes":["/dev/../x"],
		"partitions":[{"id":"p"}],"profiles":[{"name":"1","slices":-1,"starts":[99]}],"files":[{"host":"x"}],"attributes":{"a":{"b":1}}},{"address":"0000:00:02.0","health":{"state":"odd"}}],
		"links":[{"a":"q","b":"0000:00:02.0","kind":"x","count":-1,"bytesPerSecond":-1}],"pairs":[{"a":"q","b":"npu0","proximity":"PIX"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var report DriverReport
		if json.Unmarshal(data, &report) != nil {
			return
		}
		m := described(t, hardwaretest.HybridLaptop())
		merge(m, &report, "program")
		useEverything(t, m)
	})
}

// FuzzDriverAnswer reads what a driver program might answer to the other verbs.
func FuzzDriverAnswer(f *testing.F) {
	f.Add([]byte(`{"device":"0000:01:00.0","kind":"Xid","text":"\u001b[31m","count":-1}`))
	f.Add([]byte(`{"schema":"oscine.dev/driver/v1","devices":{"npu0":{"busy":1e300,"memoryUsed":-1}}}`))
	f.Add([]byte(`{"schema":"oscine.dev/driver/v1","mounts":[{"source":"/run/share/a","target":"/a"},{"source":"/run/share/../x","target":"b"}],"env":["A=1","=2"],"partition":{"id":"p"}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if e, err := parseDriverEvent(data); err == nil && (max(len(e.Text), len(e.Kind)) > 4*40+len("…") || e.Text+e.Kind+e.Device != printable.Text(e.Text+e.Kind+e.Device)) {
			t.Errorf("an event is too long: %+v", e)
		}
		var loads LoadReport
		_ = json.Unmarshal(data, &loads) // an error or a map; the placement asks by name
		var answer ShareAnswer
		if json.Unmarshal(data, &answer) != nil || answer.check("/run/share") != nil {
			return
		}
		for _, m := range answer.Mounts {
			if !strings.HasPrefix(m.Source, "/run/share/") || strings.Contains(m.Source+"/", "/../") && !strings.HasPrefix(filepath.Clean(m.Source), "/run/share/") {
				t.Errorf("%q would open more of the host", m.Source)
			}
		}
	})
}

// What a driver calls its devices, kinds and events reaches terminals and logs
// without its control bytes.
func TestDriverEventIsPrintable(t *testing.T) {
	e, err := parseDriverEvent([]byte(`{"device":"0000:01:00.0\u001b]0;x\u0007","kind":"xid\u009b31m","text":"\u001b[2Jgone\u202e","state":"lost\u0000"}`))
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{e.Device, e.Kind, e.Text, e.State} {
		if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || r == 0x202e }) {
			t.Errorf("%q", text)
		}
	}
}
