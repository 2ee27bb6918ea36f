package hardware

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"oscine.dev/oscine/internal/hardware/hardwaretest"
)

// inMemoryTree turns a machine of hardwaretest into a tree.
func inMemoryTree(t testing.TB, from *hardwaretest.Tree) tree {
	t.Helper()
	var b bytes.Buffer
	if err := from.Archive(&b); err != nil {
		t.Fatal(err)
	}
	read, gaps, err := readArchive(&b, "machine.tar")
	if err != nil || len(gaps) > 0 {
		t.Fatal(err, gaps)
	}
	return read
}

// described discovers one of the machines of hardwaretest.
func described(t testing.TB, from *hardwaretest.Tree) *Machine {
	t.Helper()
	return discover(inMemoryTree(t, from), nil)
}

// way is a path as it should be: what lies between two devices, in one text.
type way struct{ a, b, want string }

func checkWays(t *testing.T, m *Machine, ways ...way) {
	t.Helper()
	for _, c := range ways {
		p, err := m.Between(c.a, c.b)
		if err != nil {
			t.Errorf("Between(%s, %s): %v", c.a, c.b, err)
			continue
		}
		got := fmt.Sprintf("%s %.1f GB/s %d %v", p.Proximity, p.BytesPerSecond/1e9, p.Distance, p.Over)
		if got != c.want {
			t.Errorf("Between(%s, %s)\n got %s\nwant %s", c.a, c.b, got, c.want)
		}
	}
}

func TestBetween(t *testing.T) {
	h100 := described(t, hardwaretest.Server8GPU())
	checkWays(t, h100,
		way{"gpu0", "gpu0", "SELF 0.0 GB/s 0 []"},
		way{"gpu0", "gpu1", "PIX 63.0 GB/s 0 [0000:12:00.0 0000:11:00.0 0000:12:01.0]"},
		way{"gpu0", "ib0", "PIX 63.0 GB/s 0 [0000:12:00.0 0000:11:00.0 0000:12:02.0]"},
		way{"gpu0", "gpu2", "NODE 63.0 GB/s 10 [0000:12:00.0 0000:11:00.0 0000:10:01.0 node0 0000:40:01.0 0000:41:00.0 0000:42:00.0]"},
		way{"gpu0", "gpu5", "SYS 31.5 GB/s 21 [0000:12:00.0 0000:11:00.0 0000:10:01.0 node0 node1 0000:80:01.0 0000:81:00.0 0000:82:01.0]"},
		way{"gpu7", "node0", "SYS 63.0 GB/s 21 [0000:c2:01.0 0000:c1:00.0 0000:c0:01.0 node1 node0]"},
		way{"gpu7", "cpu0", "SYS 63.0 GB/s 21 [0000:c2:01.0 0000:c1:00.0 0000:c0:01.0 node1 node0]"},
		way{"cpu0", "cpu1", "NODE 0.0 GB/s 10 [node0]"},
		way{"cpu0", "cpu32", "SYS 0.0 GB/s 21 [node0 node1]"},
	)
	checkWays(t, described(t, hardwaretest.Server8MI300X()), way{"gpu0", "gpu7", "LINK 64.0 GB/s 0 [1 × xgmi]"})
	checkWays(t, described(t, hardwaretest.HybridLaptop()), way{"gpu0", "npu0", "PHB 0.0 GB/s 0 [pci0000:00]"})
	for _, unknown := range []string{"gpu99", "cpu128", "cpu", "node9", ""} {
		if _, err := h100.Between("gpu0", unknown); !errors.Is(err, ErrUnknown) {
			t.Errorf("Between with the device %q: got %v, want ErrUnknown", unknown, err)
		}
	}
}
