package hardware

import (
	"bytes"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"oscine.dev/oscine/internal/hardware/hardwaretest"
)

// reread records a tree and discovers the recording, whose whole content it
// returns too.
func reread(t *testing.T, from tree) (*Machine, []byte, Recorded) {
	t.Helper()
	var b bytes.Buffer
	recorded, err := record(from, nil, &b)
	if err != nil {
		t.Fatal(err)
	}
	tree, gaps, err := readArchive(&b, "machine.tar.zst")
	if err != nil {
		t.Fatal(err)
	}
	var everything bytes.Buffer
	if err := tree.(*subtree).pack(&everything); err != nil {
		t.Fatal(err)
	}
	return discover(tree, gaps), everything.Bytes(), recorded
}

// TestRecord records every described machine: the recording gives the same
// map and holds no secret.
func TestRecord(t *testing.T) {
	for name, tree := range hardwaretest.Machines() {
		t.Run(name, func(t *testing.T) {
			secrets := []string{"SECRET-SERIAL", "00000000deadbeef", "GPU-00000000", "52:54:00:12:34:56", "build-host"}
			tree.File("/sys/class/dmi/id/product_serial", secrets[0])
			tree.File("/sys/class/net/lo/address", secrets[3])
			tree.File("/proc/cmdline", "root=/dev/vda1 password=SECRET-SERIAL isolcpus=2")
			tree.File("/proc/hwloc-nofile-info", "HostName: build-host\nOSRelease: 7.2.12")
			want := described(t, tree)
			got, everything, recorded := reread(t, inMemoryTree(t, tree))
			if diff := gocmp.Diff(asJSON(t, want), asJSON(t, got)); diff != "" {
				t.Errorf("map of the recording (-machine +recording):\n%s", diff)
			}
			for _, s := range secrets {
				if bytes.Contains(everything, []byte(s)) {
					t.Errorf("the recording holds %q", s)
				}
			}
			if recorded.Files == 0 || len(recorded.LeftOut) > 0 {
				t.Errorf("recorded %+v", recorded)
			}
		})
	}
}

// TestRecordKeepsContents: what other programs read in a recording is what the
// machine has, however little of it our own map needed.
func TestRecordKeepsContents(t *testing.T) {
	tree := inMemoryTree(t, hardwaretest.Server8GPU())
	var b bytes.Buffer
	if _, err := record(tree, nil, &b); err != nil {
		t.Fatal(err)
	}
	read, _, err := readArchive(&b, "machine.tar.zst")
	if err != nil {
		t.Fatal(err)
	}
	compared := 0
	for name, got := range read.(*subtree).files {
		name = strings.TrimPrefix(name, read.(*subtree).root)
		if !strings.Contains(name, "/topology/") && !strings.Contains(name, "/cache/") {
			continue
		}
		compared++
		if want, err := tree.read(name, 1<<16); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: recorded %q, the machine has %q (%v)", name, got, want, err)
		}
	}
	if compared == 0 {
		t.Error("no file of the CPUs is in the recording")
	}
}

func asJSON(t *testing.T, m *Machine) []string {
	t.Helper()
	data, err := Encode(m)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(string(data), "\n")
}

// TestRecordOfPlantedSecrets puts secrets where drivers and systemd put them.
func TestRecordOfPlantedSecrets(t *testing.T) {
	const mac, uuid, unique = "525400aabbcc", "8a3c5e1b-0f2d-4c6a-9b7e-d1f2a3b4c5d6", "15346834761290"
	tree := hardwaretest.Server8MI300X()
	for name, content := range tree.Files {
		if strings.Contains(name, "/kfd/topology/nodes/") && strings.HasSuffix(name, "/properties") {
			tree.File(name, strings.TrimSpace(content)+"\nunique_id "+unique)
		}
	}
	const card = "/sys/devices/pci0000:10/0000:10:01.0/0000:11:00.0/0000:12:02.0/0000:15:00.0"
	tree.File(card+"/net/enx"+mac+"/address", "52:54:00:aa:bb:cc")
	tree.File(card+"/net/enx"+mac+"/operstate", "up")
	tree.File(card+"/net/enx"+mac+"/speed", "25000")
	tree.Link("/sys/class/net/enx"+mac, card+"/net/enx"+mac)
	tree.File(card+"/"+uuid+"/mdev_type/name", "part of a virtual machine")
	tree.File(card+"/serial_number", "SECRET-SERIAL")
	tree.File(card+"/unique_id", unique)
	tree.File("/proc/cmdline", "root=UUID="+uuid+" ip=10.1.2.3::10.1.2.1:255.255.255.0:build-host rd.luks.key=SECRET-SERIAL hugepages=4")
	tree.File("/proc/cpuinfo", tree.Files["/proc/cpuinfo"]+"\nSerial\t\t: 00000000deadbeef\n")
	tree.File("/sys/devices/virtual/dmi/id/product_uuid", uuid)
	tree.File("/sys/class/dmi/id/board_serial", "SECRET-SERIAL")
	tree.File("/etc/hostname", "build-host")
	want := described(t, tree)
	got, everything, _ := reread(t, inMemoryTree(t, tree))
	for _, secret := range []string{mac, "52:54:00", uuid, unique, "SECRET-SERIAL", "deadbeef", "build-host", "10.1.2.3"} {
		if bytes.Contains(bytes.ToLower(everything), []byte(strings.ToLower(secret))) {
			t.Errorf("the recording holds %q", secret)
		}
	}
	if !bytes.Contains(everything, []byte("hugepages=4")) {
		t.Error("the recording lacks hugepages=4, which shapes the map")
	}
	shown := strings.Join(asJSON(t, want), "\n")
	if !strings.Contains(shown, "enx"+mac) {
		t.Fatal("the interface is not on the map: this test plants nothing")
	}
	told := strings.ReplaceAll(shown, mac, "000000000001")
	if diff := gocmp.Diff(strings.Split(told, "\n"), asJSON(t, got)); diff != "" {
		t.Errorf("map of the recording (-machine +recording):\n%s", diff)
	}
}

// TestRecordThisMachine records the machine of the test. Temperatures and
// free pages move between two readings and are not compared.
func TestRecordThisMachine(t *testing.T) {
	want, err := Discover("/")
	if err != nil {
		t.Fatal(err)
	}
	live, err := openDirectory("/")
	if err != nil {
		t.Fatal(err)
	}
	defer live.Close()
	got, _, _ := reread(t, live)
	for _, m := range []*Machine{want, got} {
		m.Thermal, m.Gaps, m.System.HugePages = nil, nil, nil
		for i := range m.Nodes {
			m.Nodes[i].HugePages = nil
			m.Nodes[i].Bytes, m.System.Memory = 0, 0
		}
		for i := range m.PCI { // the extended configuration space is not recorded
			m.PCI[i].ACS = false
		}
	}
	if diff := gocmp.Diff(asJSON(t, want), asJSON(t, got)); diff != "" {
		t.Errorf("map of the recording (-machine +recording):\n%s", diff)
	}
}

// TestRedact drops what the readers should never have read.
func TestRedact(t *testing.T) {
	r := &recorder{out: newMemory()}
	r.out.put("/sys/class/net/eth0/address", "x")
	r.out.put("/sys/class/nvme/nvme0/serial", "x")
	r.out.put("/sys/a/note", "mac 52:54:00:12:34:56")
	r.out.put("/sys/a/owner", "on build-host")
	r.out.put("/sys/a/size", "12")
	left := r.redact("build-host")
	if len(left) != 4 || len(r.out.files) != 1 {
		t.Errorf("left out %v, kept %d files", left, len(r.out.files))
	}
}
